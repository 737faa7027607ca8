#pragma once
#include <stddef.h>
#include <stdint.h>

/* 
 * Decodes machine code, but only to find where instructions begin and where control goes.
 *
 * Part of the shim: build_shim.py reads this file, and usdtkit.elf.exits calls the functions through cffi. In: bytes of
 * code, or a symbol table. Out: records in buffers of the caller. There is no state, and nothing reads beyond the code
 * that it is given.
 */

/* How an instruction changes the flow of control. */
enum usdtkit_flow_kind {
  USDTKIT_FLOW_RETURN = 1,   /* returns to the caller */
  USDTKIT_FLOW_JUMP = 2,     /* goes to `target` */
  USDTKIT_FLOW_BRANCH = 3,   /* goes to `target`, or to the next instruction */
  USDTKIT_FLOW_INDIRECT = 4, /* goes to an address in a register or in memory */
  USDTKIT_FLOW_CALL = 5,     /* a call, or a system call */
  USDTKIT_FLOW_STOP = 6      /* a trap: the next instruction is not reached */
};

enum usdtkit_flow_flag {
  USDTKIT_FLOW_REFUSED = 1,     /* the kernel refuses a probe here: a prefix, or a return that checks a signature */
  USDTKIT_FLOW_NOTRACK = 2,     /* compilers mark the jumps of a switch with it */
  USDTKIT_FLOW_TABLE = 4,       /* the instruction before added two registers to get the address, as a switch does */
  USDTKIT_FLOW_ARRAY = 8,       /* the address is one of an array: of the cases of a switch, or of functions */
  USDTKIT_FLOW_MEMORY = 16,     /* the address is read from memory by the jump itself */
  USDTKIT_FLOW_SLOT = 32,       /* and the memory is at `target`: an entry of the global offset table */
  USDTKIT_FLOW_CONDITION = 64   /* the branch depends on flags; `condition` is the condition code */
};

/* One instruction that may not be followed by the next one. */
typedef struct usdtkit_flow {
  uint32_t at; /* in bytes from the start of the code, like `target` */
  uint8_t length;
  uint8_t kind;
  uint8_t condition;
  uint8_t flags;
  int64_t target;
} usdtkit_flow;

enum usdtkit_sweep_end {
  USDTKIT_SWEEP_DONE = 0,
  USDTKIT_SWEEP_UNDEFINED = 1, /* bytes that are no instruction, or an incomplete one */
  USDTKIT_SWEEP_VENDOR = 2,    /* a branch with the prefix 66, whose width depends on the processor's vendor */
  USDTKIT_SWEEP_FULL = 3       /* there are more flows than the buffer can hold */
};

typedef struct usdtkit_sweep {
  uint32_t flows;         /* how many were written */
  uint32_t stopped;       /* where it ended: at `size`, or at the instruction that `end` describes */
  uint8_t end;            /* enum usdtkit_sweep_end */
  uint8_t falls_through;  /* the last instruction continues after the code */
} usdtkit_sweep;

/* 
 * Decode `size` bytes of code from the first to the last. `starts[i]` becomes 1 if an instruction begins at i, 2 if its
 * LOCK prefix is before i, which a program with one thread may jump over, and else 0. `flows`, which can hold
 * `capacity` records, gets one for each instruction that changes the flow of control, and `sweep` the outcome.
 */
void usdtkit_sweep_x86_64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t capacity,
                          usdtkit_sweep *sweep);
void usdtkit_sweep_aarch64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t capacity,
                           usdtkit_sweep *sweep);
/* The length of the first instruction in `code`; 0 if it is no instruction or incomplete. */
uint32_t usdtkit_length_x86_64(const uint8_t *code, uint32_t size);

/* 
 * Writes the addresses and indexes of the functions of a little-endian 64-bit ELF symbol table, ordered by address; at
 * one address the largest comes first. Returns their number, which is at most `count`, the number of symbols; or
 * -ENOMEM.
 */
int64_t usdtkit_functions_by_address(const uint8_t *symbols, uint32_t count, uint64_t *addresses, uint32_t *indexes);
