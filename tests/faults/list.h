/* SPDX-License-Identifier: MIT */
/* A list of faults, in an order by a seed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tests/faults/stage.h"

struct faults_list {
    struct stage_fault *faults;
    size_t count;
    size_t capacity;
};

enum faults_length {
    FAULTS_ONCE,
    FAULTS_ONCE_AND_LASTING, /* where it can go on like that, that too */
};

/* Adds the fault with each error that its call can give. */
void faults_list_add(struct faults_list *list, const struct stage_fault *fault,
                     enum faults_length length);

void faults_list_shuffle(struct faults_list *list, uint64_t seed);
