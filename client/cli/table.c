/* SPDX-License-Identifier: MIT */
#include "client/cli/table.h"

#include <langinfo.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int complain_about_column(const struct lki_cli *cli, const struct lki_table_column *columns,
                                 size_t count, const char *name, size_t name_bytes)
{
    char all[256] = "";
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(all);
        snprintf(all + used, sizeof(all) - used, "%s%s", i ? "," : "", columns[i].name);
    }
    return lki_cli_usage(cli, "-o: unknown column '%.*s'; there are %s", (int)name_bytes, name,
                         all);
}

int lki_table_choose(const struct lki_cli *cli, const struct lki_table_column *columns,
                     size_t count, struct lki_table *out_table)
{
    *out_table = (struct lki_table){.columns = columns};
    if (!cli->columns) {
        for (size_t i = 0; i < count; i++)
            out_table->shown[out_table->column_count++] = i;
        return -1;
    }
    const char *next = cli->columns;
    for (;;) {
        size_t bytes = strcspn(next, ",");
        size_t i = 0;
        while (i < count &&
               (strlen(columns[i].name) != bytes || strncasecmp(columns[i].name, next, bytes) != 0))
            i++;
        if (i == count)
            return complain_about_column(cli, columns, count, next, bytes);
        if (out_table->column_count == LKI_TABLE_COLUMNS_MAX)
            return lki_cli_usage(cli, "-o: too many columns");
        out_table->shown[out_table->column_count++] = i;
        if (next[bytes] == '\0')
            return -1;
        next += bytes + 1;
    }
}

int lki_table_open(const struct lki_cli *cli, struct lki_table *table)
{
    table->table = scols_new_table();
    if (!table->table)
        return LKI_EXIT_OS;
    scols_table_enable_raw(table->table, cli->raw);
    scols_table_enable_noheadings(table->table, cli->no_headings);
    /* A locale without the line characters gets the plain ones. */
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        scols_table_enable_ascii(table->table, 1);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct lki_table_column *column = &table->columns[table->shown[i]];
        /* Without raw lines a tree has nothing to hang on: every row carries its name then. */
        int flags = cli->raw ? column->flags & ~SCOLS_FL_TREE : column->flags;
        if (!scols_table_new_column(table->table, column->name, 0, flags))
            return LKI_EXIT_OS;
    }
    return -1;
}

struct libscols_line *lki_table_add(struct lki_table *table, struct libscols_line *parent,
                                    const char *const *cells)
{
    struct libscols_line *line = scols_table_new_line(table->table, parent);
    if (!line)
        return NULL;
    for (size_t i = 0; i < table->column_count; i++) {
        const char *cell = cells[table->shown[i]];
        if (scols_line_set_data(line, i, cell ? cell : "-") < 0)
            return NULL;
    }
    return line;
}

int lki_table_print(struct lki_table *table)
{
    /* libsmartcols flushes nothing and reports nothing: lki_cli_finish() finds a full disk. */
    return scols_print_table(table->table) < 0 ? LKI_EXIT_OS : LKI_EXIT_OK;
}

void lki_table_deinit(struct lki_table *table)
{
    if (table->table)
        scols_unref_table(table->table);
    table->table = NULL;
}
