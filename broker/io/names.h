/* SPDX-License-Identifier: MIT */
/* PATH.names: which processes have which segments, for the next broker. When keeper and worker are
 * both lost, clients go on with what they have mapped, and nobody can find out any more what that
 * is. The next broker reads this file and gives none of these names to anybody until the processes
 * that have them have ended.
 *
 * Opened and carried over by the keeper, before there is a worker; written by workers, one record at
 * an index of the ledger's; removed at a clean end that leaves nobody behind. Records of another
 * boot, and of processes that have ended, count for nothing. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "broker/core/core.h"
#include "broker/io/peer.h"

struct lkd_names_record;

struct lkd_names {
    int directory_fd; /* borrowed */
    char file[128];   /* in it */
    int fd;           /* -1: could not be made; then nothing is noted */
    uint32_t slots;   /* records that the ledger has indices for; those carried over are behind */
    struct lkd_names_record *carried; /* of processes that live, from before */
    size_t carried_count;
};

struct lkd_names_owner { /* who has a name */
    struct lkd_process_key key;
    int32_t pid;
};

struct lkd_names_filter {
    bool (*drops)(const struct lkd_name_change *name, void *user);
    void *user;
};

/**
 * Reads what an earlier broker left and begins the file anew, with what of it still counts.
 * @base:   name of the socket in the directory
 * @filter: names that are not carried over; NULL: none
 * Returns 0 or -errno: the file could not be made, and *names notes nothing; call
 * lkd_names_close() either way.
 */
int lkd_names_open(struct lkd_names *names, int directory_fd, const char *base, uint32_t slots,
                   const struct lkd_names_filter *filter);

/* The same for a file that is open already and goes on as it is. */
void lkd_names_resume(struct lkd_names *names, int directory_fd, const char *base, uint32_t slots,
                      int fd);

/* Writes one note. Returns 0 or -errno: an old note there stays. */
int lkd_names_note(const struct lkd_names *names, const struct lkd_name_change *change,
                   const struct lkd_names_owner *owner);

/* Number i of those carried over: the name, and who has it. *out_name points into *names. */
void lkd_names_carried(const struct lkd_names *names, size_t i, struct lkd_name_change *out_name,
                       struct lkd_names_owner *out_owner);

/* The broker ends: removes the file unless somebody lives who stands in it. */
void lkd_names_close(struct lkd_names *names);
