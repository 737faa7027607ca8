#pragma once
#include <stdint.h>

/*
 * Reads call frame information into a table of rows. Each says how to find the caller's frame from an address on.
 *
 * Part of the shim: build_shim.py reads this file, and usdtkit.unwind.tables calls it through cffi. In: the bytes of
 * .eh_frame and .debug_frame, and where executable code is. Out: rows of 8 bytes. There is no state, and nothing reads
 * beyond the bytes that it is given. The time is linear in their number.
 */

/* How the canonical frame address is found: the stack pointer before the call. SP is the stack pointer, FP the frame
 * pointer (rbp, x29), and n is 8 times the row's `offset`. */
enum usdtkit_unwind_frame {
  USDTKIT_FRAME_NONE = 0,      /* there is no information: follow frame pointers, if there are any */
  USDTKIT_FRAME_SP = 1,        /* SP + n */
  USDTKIT_FRAME_FP = 2,        /* FP + n */
  USDTKIT_FRAME_PLT = 3,       /* SP + 8, and 8 more if the lowest 4 bits of the address are `slot` or larger */
  USDTKIT_FRAME_SIGNAL = 4,    /* code to which a signal handler returns: all registers are on the stack */
  USDTKIT_FRAME_AT_FP = 5,     /* what memory has at FP + n */
  USDTKIT_FRAME_AT_SP = 6,     /* what it has at SP + n */
  USDTKIT_FRAME_BEHIND_SP = 7, /* what it has at SP + n, and 8 more */
  USDTKIT_FRAME_END = 8,       /* the outermost function: it has no caller */
  USDTKIT_FRAME_RAX = 9,       /* rax + n; this and the next two are known in the innermost frame only */
  USDTKIT_FRAME_R10 = 10,      /* r10 + n */
  USDTKIT_FRAME_R11 = 11,      /* r11 + n */
  USDTKIT_FRAME_OTHER = 12     /* something that rows cannot say */
};

/* Where the caller's frame pointer is. On x86-64 its return address is always 8 bytes below the frame address. On
 * aarch64 it is in x30, or on the stack as these say. S is 8 times `slot`. */
enum usdtkit_unwind_saved {
  USDTKIT_SAVED_NOT = 0,   /* in its register; and on aarch64 the return address is in x30 */
  USDTKIT_SAVED_FP = 1,    /* FP at the frame address - S */
  USDTKIT_SAVED_AT_FP = 2, /* where FP points to, whatever the frame address is (x86-64) */
  USDTKIT_SAVED_LOST = 3,  /* FP is not known (x86-64) */
  /* aarch64: */
  USDTKIT_SAVED_PAIR = 4,      /* FP at the frame address - S, the return address 8 bytes above it */
  USDTKIT_SAVED_PAIR_HIGH = 5, /* FP at SP + S, or FP + S, whichever the frame address is found from; the same pair */
  USDTKIT_SAVED_RA = 6,        /* the return address at the frame address - S; FP in its register */
  USDTKIT_SAVED_RA_HIGH = 7    /* the return address at SP + S or FP + S; FP in its register */
};

/* Holds from its address to that of the next row. */
typedef struct usdtkit_unwind_row {
  uint32_t address; /* in bytes from `lowest` */
  int16_t offset;   /* in units of 8 bytes */
  uint8_t kinds;    /* enum usdtkit_unwind_frame, and usdtkit_unwind_saved << 4 */
  uint8_t slot;     /* in units of 8 bytes; of a procedure linkage table, a number below 16 */
} usdtkit_unwind_row;

/* What is counted: ranges of addresses with a description; those that are left out; and rules that rows cannot say,
 * which become USDTKIT_FRAME_OTHER, but for frame pointers on x86-64. */
enum usdtkit_unwind_count {
  USDTKIT_COUNT_RANGES = 0,
  USDTKIT_COUNT_OUTSIDE = 1,        /* left out: they are not in the code, as those of discarded functions */
  USDTKIT_COUNT_OVERLAPPING = 2,    /* left out: they overlap with another one */
  USDTKIT_COUNT_UNREADABLE = 3,     /* left out: the common part, or the beginning, is of a form that is not known */
  USDTKIT_COUNT_DAMAGED = 4,        /* rules: from a place on, the instructions of the description are damaged */
  USDTKIT_COUNT_EXPRESSION = 5,     /* the frame address is an expression of another form */
  USDTKIT_COUNT_REGISTER = 6,       /* it is found from another register */
  USDTKIT_COUNT_DISTANCE = 7,       /* a distance is too large, or no multiple of 8 */
  USDTKIT_COUNT_RETURN_ADDRESS = 8, /* the return address is elsewhere */
  USDTKIT_COUNT_FRAME_POINTER = 9,  /* the frame pointer is elsewhere */
  USDTKIT_COUNT_SIGNAL = 10,        /* a signal's frame of another form */
  USDTKIT_COUNTS = 11
};

enum usdtkit_unwind_section_kind {
  USDTKIT_EH_FRAME = 0,
  USDTKIT_EH_FRAME_ENDED = 1, /* .eh_frame whose size is not known: an entry of length 0 ends it */
  USDTKIT_DEBUG_FRAME = 2
};

typedef struct usdtkit_unwind_section {
  const uint8_t *data;
  uint64_t size;
  uint64_t address; /* the virtual address of `data` */
  uint64_t kind;    /* enum usdtkit_unwind_section_kind */
} usdtkit_unwind_section;

/* Executable code, as virtual addresses. */
typedef struct usdtkit_unwind_code {
  uint64_t start, end;
} usdtkit_unwind_code;

/* Where two sections describe the same addresses, the first one counts. Rows count from `lowest`, which is at most 4 GB
 * below the end of the code. */
typedef struct usdtkit_unwind_source {
  const usdtkit_unwind_section *sections;
  const usdtkit_unwind_code *code;
  uint32_t section_count, code_count;
  uint64_t lowest;
  uint64_t aarch64; /* 0 for x86-64 */
} usdtkit_unwind_source;

typedef struct usdtkit_unwind_table {
  usdtkit_unwind_row *rows; /* in the order of their addresses, the first at 0 */
  uint64_t count;
  uint64_t stopped;    /* where in the last section reading ended */
  uint64_t counts[11]; /* by enum usdtkit_unwind_count */
} usdtkit_unwind_table;

/* Ranges without information get a row if they have 32 bytes or more. Returns 0; -EINVAL if the entry at `stopped` does
 * not lie within its section; -E2BIG if there are more than 16 million rows, or a million ranges; -ERANGE if code is
 * too far from `lowest`; -ENOMEM. */
int usdtkit_unwind_read(const usdtkit_unwind_source *source, usdtkit_unwind_table *table);
void usdtkit_unwind_free(usdtkit_unwind_table *table);
/* Writes for each page of 4096 bytes, from the lowest, the number of the last row at or before its first byte. */
void usdtkit_unwind_index(const usdtkit_unwind_table *table, uint32_t *index, uint32_t pages);

/* Where rows lie, as the walker in the kernel finds them: in chunks of 32,768, so that the number of a row is its
 * chunk << 15 and its place there. The rows of a page lie in one chunk. */
enum { USDTKIT_CHUNK_BITS = 15, USDTKIT_PAGE_MOST = 4096 };

/* The rows of one page: from the last one at or before its first byte to the last one in it. Their addresses differ, so
 * there are at most USDTKIT_PAGE_MOST. */
typedef struct usdtkit_unwind_page {
  uint32_t row, count;
} usdtkit_unwind_page;

/* Rows of the table, from `row` on, which are to be the rows from `to` on. They lie in one chunk. */
typedef struct usdtkit_unwind_copy {
  uint32_t row, count, to;
} usdtkit_unwind_copy;

/* Lays out a table behind the `next` rows that there are. `index` is that of the table, with `count` pages and one
 * more. Where the rows of a page do not fit into a chunk any more, these and the following ones go to the next one.
 * Returns the number of copies; -EINVAL if the index is not that of the rows; -ENOSPC if there are more than `most`,
 * which cannot be with 2 and one more for each (1 << USDTKIT_CHUNK_BITS) - USDTKIT_PAGE_MOST rows. */
int usdtkit_unwind_lay(const usdtkit_unwind_row *rows, uint32_t row_count, const uint32_t *index,
                       usdtkit_unwind_page *pages, uint32_t count, uint32_t next, usdtkit_unwind_copy *copies,
                       int most);
