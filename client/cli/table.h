/* SPDX-License-Identifier: MIT */
/* Tables on stdout through libsmartcols: -o COLUMNS, --raw, --no-headings, tree rows. The columns
 * are the same on a terminal and in a pipe. */
#pragma once

#include <stddef.h>

#include "client/cli/cli.h"

#define LKI_TABLE_COLUMNS_MAX 16

struct libscols_line;
struct libscols_table;

struct lki_table_column {
    const char *name;
    int flags; /* SCOLS_FL_RIGHT, SCOLS_FL_TREE, ... */
};

struct lki_table {
    const struct lki_table_column *columns; /* all that there are; borrowed */
    size_t column_count;                    /* of those shown */
    size_t shown[LKI_TABLE_COLUMNS_MAX];    /* indexes into columns */
    struct libscols_table *table;           /* NULL: not open */
};

/* Chooses the columns that -o names, all of them without -o: before anybody is asked for the data.
 * count is at most LKI_TABLE_COLUMNS_MAX. Returns -1 to carry on, else the exit code; it has
 * complained then. */
int lki_table_choose(const struct lki_cli *cli, const struct lki_table_column *columns,
                     size_t count, struct lki_table *out_table);

/* Makes the table itself. Returns -1 to carry on, else the exit code. */
int lki_table_open(const struct lki_cli *cli, struct lki_table *table);

/* Adds a row under `parent` (NULL: none). cells has one text per column of the caller, which is
 * copied; NULL shows as "-". Returns the row, NULL: no memory. */
struct libscols_line *lki_table_add(struct lki_table *table, struct libscols_line *parent,
                                    const char *const *cells);

/* Prints the table to stdout. Returns the exit code. */
int lki_table_print(struct lki_table *table);

void lki_table_deinit(struct lki_table *table);
