/* What the files of the reader of call frame information share: the bytes of an entry, and what is made of them.
 * unwind.h says what goes in and what comes out.
 *
 *   unwind.c          sections → ranges in the order of their addresses → rows
 *   unwind_entries.c  a section → its entries: what descriptions share, and ranges of addresses
 *   unwind_rules.c    the instructions of an entry → states: where the caller's registers are, from an address on
 *   unwind_rows.c     a state → a row, with the patterns that expressions have
 *   unwind_layout.c   rows → where they lie for the walker in the kernel
 *
 * All names here are hidden, so that a call from one file to another is a direct one.
 */

#ifndef USDTKIT_UNWIND_READER_H
#define USDTKIT_UNWIND_READER_H

#include "unwind.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(hidden)

enum { PAGE_BITS = 12 }; /* of a page of the index */

/* The bytes of one entry. Reading beyond the end gives zeros, and is remembered. */
typedef struct {
  const uint8_t *at, *end;
  int failed;
} cursor;

enum { HOW_SAME, HOW_OFFSET, HOW_EXPRESSION, HOW_UNDEFINED, HOW_OTHER };

/* Where the caller's value of a register is. */
typedef struct {
  const uint8_t *expression;
  int64_t offset; /* from the frame address */
  uint32_t length;
  uint8_t how;
} rule;

typedef struct {
  const uint8_t *expression; /* of the frame address; NULL if it is a register and an offset */
  uint64_t length;
  uint64_t base;
  int64_t offset;
  rule frame_pointer, return_address;
} state;

/* What descriptions share. */
typedef struct {
  const usdtkit_unwind_section *section;
  uint32_t place;
  uint8_t usable, augmented, signal, encoding;
  uint64_t code_unit;
  int64_t data_unit;
  state first;
} common;

/* The description of a range: `at` and `end` say where in the section of its common part its instructions are. */
typedef struct {
  uint64_t start;
  uint32_t size, common, at, end;
} range;

typedef struct {
  const usdtkit_unwind_source *source;
  const usdtkit_unwind_section *section; /* the one that is being read */
  usdtkit_unwind_table *table;
  common *commons;
  range *ranges;
  uint64_t commons_before; /* those of other sections */
  uint64_t common_count, common_room, range_count, range_room, row_room;
  uint32_t sp, fp, ra; /* numbers of registers */
} reader;

static inline uint64_t take(cursor *c, unsigned size) {
  uint64_t value = 0;
  if ((uint64_t)(c->end - c->at) < size) {
    c->failed = 1;
    c->at = c->end;
    return 0;
  }
  memcpy(&value, c->at, size);
  c->at += size;
  return value;
}

static inline void skip(cursor *c, uint64_t size) {
  if ((uint64_t)(c->end - c->at) < size) {
    c->failed = 1;
    size = (uint64_t)(c->end - c->at);
  }
  c->at += size;
}

/* A number of varying length, with its sign if it `is_signed`. */
static inline uint64_t take_varying(cursor *c, int is_signed) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    uint8_t byte = (uint8_t)take(c, 1);
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte & 0x80) continue;
    if (is_signed && byte & 0x40 && shift + 7 < 64) value |= UINT64_MAX << (shift + 7);
    return value;
  }
  c->failed = 1;
  return 0;
}

static inline uint64_t take_unsigned(cursor *c) { return take_varying(c, 0); }
static inline int64_t take_signed(cursor *c) { return (int64_t)take_varying(c, 1); }

/* unwind_entries.c */

/* An address that is encoded as `encoding`, one of DW_EH_PE_*, says. */
uint64_t take_address(const reader *r, cursor *c, uint8_t encoding);
/* Whether `count` things of `size` bytes fit, with one more. Returns 0, -E2BIG or -ENOMEM. */
int grow(void **things, uint64_t *room, uint64_t count, size_t size, uint64_t most);
/* Collects the common parts, then the ranges, of the reader's section. Both return 0 or an error of unwind.h. */
int read_commons(reader *r);
int read_ranges(reader *r);

/* unwind_rules.c */

/* Executes the instructions of a common part. Returns 0 if they are not known. */
int run_common(const reader *r, common *shared, cursor *c);
/* Adds the rows of a range. */
int run_range(reader *r, const range *described);

/* unwind_rows.c */

/* Adds a row, or what a state becomes, from an address on, unless it says the same as the row before. */
int add_row(reader *r, uint64_t address, usdtkit_unwind_row row);
int add_state(reader *r, uint64_t address, const state *s, int signal);
/* A row for a rule that rows cannot say, which is counted. */
usdtkit_unwind_row other(reader *r, int why);

#pragma GCC visibility pop

#endif
