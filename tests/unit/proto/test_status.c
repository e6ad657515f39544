/* SPDX-License-Identifier: MIT */
#include "proto/status.h"

#include <errno.h>
#include <stdbool.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "proto/lockkeeper.pb-c.h"

TestSuite(status, .timeout = 20);

static const ProtobufCEnumDescriptor *wire(void)
{
    return &lockkeeper__wire__status__descriptor;
}

Test(status, every_status_of_the_schema_becomes_a_result_and_itself_again)
{
    cr_assert(ne(uint, wire()->n_values, 0));
    for (unsigned i = 0; i < wire()->n_values; i++) {
        const enum lki_status status = (enum lki_status)wire()->values[i].value;
        const char *name = wire()->values[i].name;
        const int result = lki_status_to_result(status);

        if (status == LKI_STATUS_PROTOCOL)
            cr_expect(eq(int, result, -EPROTO), "%s", name);
        else
            cr_expect(ne(int, result, -EPROTO), "%s is not in the table", name);
        if (status == LKI_STATUS_CREATED) /* shares 1 with OWNER_DIED */
            cr_expect(eq(int, result, 1));
        else
            cr_expect(eq(int, lki_status_from_result(result), status), "%s", name);
    }
}

Test(status, no_two_statuses_share_an_error)
{
    for (unsigned i = 0; i < wire()->n_values; i++) {
        for (unsigned k = 0; k < i; k++) {
            const int a = lki_status_to_result((enum lki_status)wire()->values[i].value);
            const int b = lki_status_to_result((enum lki_status)wire()->values[k].value);
            const bool apart = a != b || a == 1; /* OWNER_DIED and CREATED */
            cr_expect(apart, "%s and %s", wire()->values[i].name, wire()->values[k].name);
        }
    }
}

Test(status, a_value_outside_the_table_is_a_protocol_error_both_ways)
{
    cr_expect(eq(int, lki_status_to_result((enum lki_status)3), -EPROTO));
    cr_expect(eq(int, lki_status_to_result((enum lki_status)34), -EPROTO));
    cr_expect(eq(int, lki_status_to_result((enum lki_status) - 1), -EPROTO));
    cr_expect(eq(int, lki_status_from_result(-ENOTTY), LKI_STATUS_PROTOCOL));
    cr_expect(eq(int, lki_status_from_result(2), LKI_STATUS_PROTOCOL));
}

Test(status, success_and_a_dead_owner_keep_their_results)
{
    cr_expect(eq(int, lki_status_to_result(LKI_STATUS_OK), 0));
    cr_expect(eq(int, lki_status_to_result(LKI_STATUS_OWNER_DIED), 1));
    cr_expect(eq(int, lki_status_from_result(1), LKI_STATUS_OWNER_DIED));
}
