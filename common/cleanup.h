/* SPDX-License-Identifier: MIT */
/* Cleanup by scope, and handing over. A variable declared with LKI_CLEANUP(f) is passed by address
 * to f when its scope ends; LKI_STEAL gives its value away and leaves the empty value behind. */
#pragma once

#include <stdlib.h>

#define LKI_CLEANUP(function) __attribute__((cleanup(function)))

/* Takes the pointer out of *pointer_address and leaves NULL. */
#define LKI_STEAL(pointer_address)                                                                 \
    __extension__({                                                                                \
        __auto_type lki_steal_address = (pointer_address);                                         \
        __auto_type lki_steal_value = *lki_steal_address;                                          \
        *lki_steal_address = NULL;                                                                 \
        lki_steal_value;                                                                           \
    })

/* Defines NAME_p(), which cleans up through a pointer to the variable, for LKI_CLEANUP. */
#define LKI_DEFINE_CLEANUP(type, function)                                                         \
    static inline void function##_p(type *variable)                                                \
    {                                                                                              \
        if (*variable)                                                                             \
            function(*variable);                                                                   \
    }

static inline void lki_free_p(void *variable_address)
{
    free(*(void **)variable_address);
}

#define LKI_CONTAINER_OF(pointer, type, member)                                                    \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define LKI_ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))
