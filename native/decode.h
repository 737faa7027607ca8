#pragma once
#include <stddef.h>
#include <stdint.h>

/*
 * Machine code, read only as far as it takes to know where instructions begin and where control goes.
 *
 * Part of the shim: build_shim.py gives this very file to cffi. Nothing here keeps state, allocates memory or reads
 * beyond the code that it is given.
 */

/* What an instruction does to the flow of control. */
enum usdtkit_flow_kind {
  USDTKIT_FLOW_RETURN = 1,   /* leaves to the caller */
  USDTKIT_FLOW_JUMP = 2,     /* goes to `target` */
  USDTKIT_FLOW_BRANCH = 3,   /* goes to `target` or on */
  USDTKIT_FLOW_INDIRECT = 4, /* goes to an address in a register or in memory */
  USDTKIT_FLOW_CALL = 5,     /* a call, or a system call */
  USDTKIT_FLOW_STOP = 6      /* a trap: nothing that follows it is run */
};

enum usdtkit_flow_flag {
  USDTKIT_FLOW_REFUSED = 1,     /* the kernel puts no probe here: a prefix, or a return that checks a signature */
  USDTKIT_FLOW_NOTRACK = 2,     /* compilers mark so the jumps through the tables of a switch */
  USDTKIT_FLOW_TABLE = 4,       /* the instruction before added two registers to get the address, as a switch does */
  USDTKIT_FLOW_ARRAY = 8,       /* the address is one of an array: of the cases of a switch, or of functions */
  USDTKIT_FLOW_MEMORY = 16,     /* the address is read from memory by the jump itself */
  USDTKIT_FLOW_SLOT = 32,       /* and that memory is at `target`: an entry of the global offset table */
  USDTKIT_FLOW_CONDITION = 64   /* a branch by the flags, for which `condition` is the condition code */
};

/* One instruction that is not followed by the next one in any case. */
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
  USDTKIT_SWEEP_UNDEFINED = 1, /* bytes that are no instruction, or only the beginning of one */
  USDTKIT_SWEEP_VENDOR = 2,    /* a branch with the prefix 66, of which processors differ in the width */
  USDTKIT_SWEEP_FULL = 3       /* there are more flows than room for them */
};

typedef struct usdtkit_sweep {
  uint32_t flows;         /* how many were written */
  uint32_t stopped;       /* where it ended: at `size`, or at the instruction that `end` is about */
  uint8_t end;            /* enum usdtkit_sweep_end */
  uint8_t falls_through;  /* the last instruction is followed by what comes after the code */
} usdtkit_sweep;

/*
 * Decode `size` bytes from the first to the last. Writes 1 to `starts[i]` where an instruction begins at i, 2 behind
 * its LOCK prefix, over which a program of one thread may jump, and 0 elsewhere; a record to `flows` for each
 * instruction that changes the flow of control; and the outcome to `sweep`.
 */
void usdtkit_sweep_x86_64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t room,
                          usdtkit_sweep *sweep);
void usdtkit_sweep_aarch64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t room,
                           usdtkit_sweep *sweep);
/* Bytes of the first instruction in `code`, 0 where it is none or not complete. */
uint32_t usdtkit_length_x86_64(const uint8_t *code, uint32_t size);

/*
 * The addresses and indexes of the functions of a little-endian 64-bit ELF symbol table, ordered by address; at one
 * address the largest comes first. Returns how many, at most `count`, the number of symbols; -ENOMEM.
 */
int64_t usdtkit_functions_by_address(const uint8_t *symbols, uint32_t count, uint64_t *addresses, uint32_t *indexes);
