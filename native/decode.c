/* Machine code → where instructions begin and where control goes, which decode.h describes. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

/* 
 * x86-64. An instruction has prefixes, and an opcode of one to three bytes in one of several maps. Depending on the
 * opcode a ModRM byte follows, with a SIB byte and a displacement depending on its value, and an immediate. The tables
 * say which of these follow an opcode. That gives the length, whatever the instruction computes.
 */
enum {
  M = 1,  /* ModRM, and the bytes that belong to it */
  B = 2,  /* an immediate of one byte */
  Z = 4,  /* of four bytes, of two with the prefix 66 */
  V = 8,  /* of four, of two with 66, of eight with REX.W */
  O = 16, /* an address of eight bytes, of four with the prefix 67 */
  W = 32, /* an immediate of two bytes */
  X = 64  /* not an instruction in 64-bit mode */
};

static const uint8_t one_byte_map[256] = {
    /* 00 add, or   */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 10 adc, sbb  */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 20 and, sub  */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 30 xor, cmp  */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 40 REX       */ X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X,
    /* 50 push, pop */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 60 movslq …  */ X, X, X, M, X, X, X, X, Z, M | Z, B, M | B, 0, 0, 0, 0,
    /* 70 jcc       */ B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
    /* 80 test, mov */ M | B, M | Z, X, M | B, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 90 xchg …    */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, X, 0, 0, 0, 0, 0,
    /* a0 mov, movs */ O, O, O, O, 0, 0, 0, 0, B, Z, 0, 0, 0, 0, 0, 0,
    /* b0 mov       */ B, B, B, B, B, B, B, B, V, V, V, V, V, V, V, V,
    /* c0 ret, mov  */ M | B, M | B, W, 0, X, X, M | B, M | Z, W | B, 0, W, 0, 0, B, X, 0,
    /* d0 shifts, x87 */ M, M, M, M, X, X, X, 0, M, M, M, M, M, M, M, M,
    /* e0 loop, call, jmp */ B, B, B, B, B, B, B, B, Z, Z, X, B, 0, 0, 0, 0,
    /* f0 groups    */ X, 0, X, X, 0, 0, M, M, 0, 0, 0, 0, 0, 0, M, M,
};

static const uint8_t two_byte_map[256] = {
    /* 0f 00 syscall, ud2 */ M, M, M, M, X, 0, 0, 0, 0, 0, X, 0, X, M, 0, M | B,
    /* 0f 10 movups  */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f 20 mov cr  */ M, M, M, M, X, X, X, X, M, M, M, M, M, M, M, M,
    /* 0f 30 rdtsc   */ 0, 0, 0, 0, 0, 0, X, 0, X, X, X, X, X, X, X, X,
    /* 0f 40 cmov    */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f 50 SSE     */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f 60 MMX     */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f 70 pshuf   */ M | B, M | B, M | B, M | B, M, M, M, 0, M, M, X, X, M, M, M, M,
    /* 0f 80 jcc     */ Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z,
    /* 0f 90 setcc   */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f a0 shld, bt */ 0, 0, 0, M, M | B, M, M, M, 0, 0, 0, M, M | B, M, M, M,
    /* 0f b0 movzx   */ M, M, M, M, M, M, M, M, M, M, M | B, M, M, M, M, M,
    /* 0f c0 bswap   */ M, M, M | B, M, M | B, M | B, M | B, M, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 0f d0 MMX     */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f e0         */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 0f f0         */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
};

enum { MAX_LENGTH = 15, NO_REGISTER = 255 };

/* One decoded instruction. Fields that do not apply are 0. */
typedef struct {
  uint32_t length;
  int vendor;      /* its width depends on the vendor of the processor */
  int far;         /* it changes the code segment, which no function of a program does */
  int nop;
  uint8_t indexed; /* the register into which it puts an address that it computes from an index */
  uint8_t how;     /* USDTKIT_FLOW_TABLE or USDTKIT_FLOW_ARRAY */
  usdtkit_flow flow;
} instruction;

typedef struct {
  const uint8_t *at, *end, *modrm;
  int rex, data16, address32, repne, rep, lock, refused, notrack;
} cursor;

static int next_byte(cursor *c) { return c->at < c->end ? *c->at++ : -1; }

static int skip(cursor *c, ptrdiff_t count) {
  if (c->end - c->at < count) return 0;
  c->at += count;
  return 1;
}

static int64_t displacement(const uint8_t *bytes, int size) {
  int8_t narrow;
  int32_t wide;
  if (size == 1) return memcpy(&narrow, bytes, 1), narrow;
  return memcpy(&wide, bytes, 4), wide;
}

/* Prefixes come in any order. A REX prefix counts only directly before the opcode. */
static void take_prefixes(cursor *c) {
  for (; c->at < c->end; c->at++) {
    uint8_t byte = *c->at;
    if ((byte & 0xf0) == 0x40) {
      c->rex = byte;
      continue;
    }
    switch (byte) {
      case 0x66: c->data16 = 1; break;
      case 0x67: c->address32 = 1; break;
      case 0xf2: c->repne = 1, c->rep = 0; break;
      case 0xf3: c->rep = 1, c->repne = 0; break;
      case 0xf0: c->lock = c->refused = 1; break;
      case 0x3e: c->notrack = c->refused = 1; break;
      case 0x26: case 0x2e: case 0x36: c->refused = 1; break;
      case 0x64: case 0x65: break;
      default: return;
    }
    c->rex = 0;
  }
}

/* The opcode behind a VEX, EVEX or XOP prefix, whose payload has the number of the map. Returns its flags. */
static int take_vector_opcode(cursor *c, int prefix) {
  int payload = prefix == 0xc5 ? 1 : prefix == 0x62 ? 3 : 2;
  const uint8_t *first = c->at;
  if (c->rex || c->data16 || c->rep || c->repne || c->lock || !skip(c, payload)) return X;
  int map = prefix == 0xc5 ? 1 : *first & (prefix == 0x62 ? 7 : 31);
  int opcode = next_byte(c);
  if (opcode < 0) return X;
  if (prefix == 0x8f) return map == 8 ? M | B : map == 9 ? M : map == 10 ? M | Z : X;
  switch (map) {
    case 1: return opcode == 0x77 && prefix != 0x62 ? 0 : M | (two_byte_map[opcode] & B); /* 77: vzeroupper */
    case 2: case 5: case 6: return M;
    case 3: return M | B;
    case 7: return M | Z;
    default: return X; /* 4 is APX, which no processor had when this was written */
  }
}

/* The ModRM byte and the bytes that belong to it. Returns 0 if the code ends within them. */
static int take_modrm(cursor *c, int always_register) {
  c->modrm = c->at;
  int modrm = next_byte(c);
  if (modrm < 0) return 0;
  if (modrm >= 0xc0 || always_register) return 1;
  int mode = modrm >> 6, base = modrm & 7, size = mode == 1 ? 1 : mode == 2 ? 4 : 0;
  if (base == 4) {
    int sib = next_byte(c);
    if (sib < 0) return 0;
    base = sib & 7;
  }
  if (mode == 0 && base == 5) size = 4; /* relative to the instruction pointer, or without a base */
  return skip(c, size);
}

/* Whether the memory operand has an index register; the SIB byte follows the ModRM byte. */
static int has_index(const cursor *c) {
  return *c->modrm < 0xc0 && (*c->modrm & 7) == 4 && ((c->modrm[1] >> 3 & 7) != 4 || c->rex & 2);
}

/* Describes where `jmp *…` gets its address from. */
static void describe_indirect(const cursor *c, usdtkit_flow *flow) {
  int modrm = *c->modrm;
  flow->kind = USDTKIT_FLOW_INDIRECT;
  flow->condition = (uint8_t)((modrm & 7) | (c->rex & 1) << 3); /* the register, for the sweep to compare */
  if (c->notrack) flow->flags |= USDTKIT_FLOW_NOTRACK;
  if (modrm >= 0xc0) return;
  flow->flags |= USDTKIT_FLOW_MEMORY;
  if (has_index(c)) flow->flags |= USDTKIT_FLOW_ARRAY;
  if ((modrm & 0xc7) == 5) {
    flow->flags |= USDTKIT_FLOW_SLOT;
    flow->target = displacement(c->modrm + 1, 4);
  }
}

/* Notes `add reg,reg` and `mov array(,reg,8),reg`, which compute the address of a case of a switch. */
static void note_indexed(const cursor *c, int opcode, instruction *decoded) {
  int reg = (*c->modrm >> 3 & 7) | (c->rex & 4) << 1, rm = (*c->modrm & 7) | (c->rex & 1) << 3;
  if (*c->modrm >= 0xc0 && (opcode == 0x01 || opcode == 0x03)) {
    decoded->indexed = (uint8_t)(opcode == 0x01 ? rm : reg);
    decoded->how = USDTKIT_FLOW_TABLE;
  } else if (opcode == 0x8b && has_index(c) && c->modrm[1] >> 6 == 3) {
    decoded->indexed = (uint8_t)reg;
    decoded->how = USDTKIT_FLOW_ARRAY;
  }
}

/* Opcodes that continue in the ModRM byte. Returns flags of what follows, or X. */
static int describe_group(const cursor *c, int opcode, instruction *decoded) {
  int group = *c->modrm >> 3 & 7;
  switch (opcode) {
    case 0xc6: case 0xc7: return group == 0 || *c->modrm == 0xf8 ? 0 : X; /* mov; f8: xabort, xbegin */
    case 0xf6: return group < 2 ? B : 0;
    case 0xf7: return group < 2 ? Z : 0;
    case 0xfe: return group < 2 ? 0 : X;
    case 0xff:
      if (group == 7) return X;
      if (group == 2 || group == 3) decoded->flow.kind = USDTKIT_FLOW_CALL;
      if (group == 4) describe_indirect(c, &decoded->flow);
      decoded->far = group == 3 || group == 5;
      return 0;
    default: note_indexed(c, opcode, decoded); return 0;
  }
}

/* Describes how an opcode of the first map changes the flow of control. `immediate` has one byte or four. */
static void describe_one_byte(const cursor *c, int opcode, const uint8_t *immediate, instruction *decoded) {
  usdtkit_flow *flow = &decoded->flow;
  if (opcode == 0xc3 || opcode == 0xc2) flow->kind = USDTKIT_FLOW_RETURN;
  if (opcode == 0xe8) flow->kind = USDTKIT_FLOW_CALL;
  if (opcode == 0xe9 || opcode == 0xeb) flow->kind = USDTKIT_FLOW_JUMP;
  if ((opcode & 0xf0) == 0x70 || (opcode & 0xfc) == 0xe0) flow->kind = USDTKIT_FLOW_BRANCH; /* e0…e3 count in rcx */
  if (opcode == 0xf4 || opcode == 0xcc) flow->kind = USDTKIT_FLOW_STOP;
  if (flow->kind == USDTKIT_FLOW_JUMP || flow->kind == USDTKIT_FLOW_BRANCH)
    flow->target = displacement(immediate, opcode == 0xe9 ? 4 : 1);
  if (flow->kind && flow->kind != USDTKIT_FLOW_STOP) decoded->vendor = c->data16 && !(c->rex & 8);
  if ((opcode & 0xf0) == 0x70) flow->condition = opcode & 15, flow->flags |= USDTKIT_FLOW_CONDITION;
  if (opcode == 0xcd) flow->kind = USDTKIT_FLOW_CALL; /* int, another system call */
  if (opcode == 0xca || opcode == 0xcb || opcode == 0xcf) decoded->far = 1;
  decoded->nop = opcode == 0x90 && !(c->rex & 1) && !c->rep;
}

static void describe_two_byte(const cursor *c, int opcode, const uint8_t *immediate, instruction *decoded) {
  usdtkit_flow *flow = &decoded->flow;
  if ((opcode & 0xf0) == 0x80) {
    flow->kind = USDTKIT_FLOW_BRANCH;
    flow->condition = opcode & 15;
    flow->flags |= USDTKIT_FLOW_CONDITION;
    flow->target = displacement(immediate, 4);
    decoded->vendor = c->data16 && !(c->rex & 8);
  }
  if (opcode == 0x0b || opcode == 0xb9 || opcode == 0xff) flow->kind = USDTKIT_FLOW_STOP; /* ud2, ud1, ud0 */
  if (opcode == 0x05 || opcode == 0x34) flow->kind = USDTKIT_FLOW_CALL;                   /* syscall, sysenter */
  decoded->nop = opcode == 0x1f;
}

static int take_immediate(cursor *c, int flags, int always_wide) {
  int narrow = c->data16 && !(c->rex & 8) && !always_wide;
  int size = (flags & B ? 1 : 0) + (flags & W ? 2 : 0) + (flags & Z ? narrow ? 2 : 4 : 0);
  if (flags & V) size += c->rex & 8 ? 8 : narrow ? 2 : 4;
  if (flags & O) size += c->address32 ? 4 : 8;
  return skip(c, size);
}

/* Reads an opcode of one to three bytes and its map, which is 0 for vector instructions. Returns its flags. */
static int take_opcode(cursor *c, int *map, int *opcode) {
  *map = 1, *opcode = next_byte(c);
  if (*opcode < 0) return X;
  int is_xop = *opcode == 0x8f && c->at < c->end && (*c->at & 31) >= 8; /* else it is a pop */
  if (*opcode == 0xc4 || *opcode == 0xc5 || *opcode == 0x62 || is_xop) {
    *map = 0;
    return take_vector_opcode(c, *opcode);
  }
  if (*opcode != 0x0f) return one_byte_map[*opcode];
  *map = 2, *opcode = next_byte(c);
  if (*opcode == 0x38 || *opcode == 0x3a) {
    int flags = *opcode == 0x38 ? M : M | B;
    *map = 3;
    return next_byte(c) < 0 ? X : flags;
  }
  if (*opcode < 0 || (*opcode == 0xb8 && !c->rep)) return X;
  if (*opcode == 0x78 && (c->data16 || c->repne)) return M | W; /* extrq and insertq have two immediates of a byte */
  return two_byte_map[*opcode];
}

/* Decodes the first instruction of `code`. Its `length` is 0 if it is no instruction or incomplete. */
static instruction decode_x86_64(const uint8_t *code, uint32_t size) {
  instruction decoded = {.indexed = NO_REGISTER};
  cursor c = {.at = code, .end = code + (size < MAX_LENGTH ? size : MAX_LENGTH)};
  int map, opcode;
  take_prefixes(&c);
  int flags = take_opcode(&c, &map, &opcode);
  if (flags & M) {
    if (!take_modrm(&c, map == 2 && opcode >= 0x20 && opcode <= 0x23)) return decoded;
    if (map == 1) flags |= describe_group(&c, opcode, &decoded);
  }
  if (flags & X) return decoded;
  const uint8_t *immediate = c.at;
  int is_near_branch = (map == 1 && (opcode & 0xfe) == 0xe8) || (map == 2 && (opcode & 0xf0) == 0x80);
  if (!take_immediate(&c, flags, map == 0 || is_near_branch)) return decoded;
  if (map == 1) describe_one_byte(&c, opcode, immediate, &decoded);
  if (map == 2) describe_two_byte(&c, opcode, immediate, &decoded);
  if (decoded.far) return decoded;
  decoded.length = (uint32_t)(c.at - code);
  if (c.refused) decoded.flow.flags |= USDTKIT_FLOW_REFUSED;
  return decoded;
}

uint32_t usdtkit_length_x86_64(const uint8_t *code, uint32_t size) { return decode_x86_64(code, size).length; }

/* aarch64: every instruction has four bytes. Sign-extends the `bits` of a branch's distance, which counts words. */
static int64_t words_away(uint32_t word, int from, int bits) {
  int64_t distance = word >> from & ((1U << bits) - 1);
  return 4 * (distance >> (bits - 1) ? distance - (1LL << bits) : distance);
}

static instruction decode_aarch64(const uint8_t *code, uint32_t size) {
  instruction decoded = {.indexed = NO_REGISTER};
  usdtkit_flow *flow = &decoded.flow;
  uint32_t word;
  if (size < sizeof word) return decoded;
  memcpy(&word, code, sizeof word);
  decoded.length = sizeof word;
  decoded.nop = word == 0xd503201f;
  if (word == 0xd65f03c0) {
    flow->kind = USDTKIT_FLOW_RETURN;
  } else if (word == 0xd65f0bff || word == 0xd65f0fff) { /* retaa, retab: the kernel refuses probes on them */
    flow->kind = USDTKIT_FLOW_RETURN;
    flow->flags = USDTKIT_FLOW_REFUSED;
  } else if ((word & 0xfffffc1f) == 0xd61f0000 || (word & 0xfffffc1f) == 0xd65f0000) { /* br, ret by another register */
    flow->kind = USDTKIT_FLOW_INDIRECT;
    flow->condition = word >> 5 & 31;
  } else if ((word & 0xfefff800) == 0xd61f0800) { /* braa and its like */
    flow->kind = USDTKIT_FLOW_INDIRECT;
    flow->flags = USDTKIT_FLOW_REFUSED;
  } else if ((word & 0xfc000000) == 0x14000000) { /* b */
    flow->kind = USDTKIT_FLOW_JUMP;
    flow->target = words_away(word, 0, 26);
  } else if ((word & 0xff000000) == 0x54000000 || (word & 0x7e000000) == 0x34000000) { /* b.cond, cbz, cbnz */
    flow->kind = USDTKIT_FLOW_BRANCH;
    flow->target = words_away(word, 5, 19);
  } else if ((word & 0x7e000000) == 0x36000000) { /* tbz, tbnz */
    flow->kind = USDTKIT_FLOW_BRANCH;
    flow->target = words_away(word, 5, 14);
  } else if ((word & 0xfc000000) == 0x94000000 || (word & 0xfefff000) == 0xd63f0000 ||
             (word & 0xffe0001f) == 0xd4000001) {
    flow->kind = USDTKIT_FLOW_CALL; /* bl, blr and its like, svc */
  } else if ((word & 0xffe0001f) == 0xd4200000 || (word & 0xffe0001f) == 0xd4400000 || word < 0x10000) {
    flow->kind = USDTKIT_FLOW_STOP; /* brk, hlt, udf */
  } else if ((word & 0x7f200000) == 0x0b000000 || (word & 0x7fe00000) == 0x0b200000) {
    decoded.indexed = word & 31; /* add of two registers */
    decoded.how = USDTKIT_FLOW_TABLE;
  }
  return decoded;
}

static void sweep(instruction (*decode)(const uint8_t *, uint32_t), int is_x86, const uint8_t *code,
                  uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t capacity, usdtkit_sweep *out) {
  uint8_t indexed = NO_REGISTER, how = 0;
  *out = (usdtkit_sweep){.falls_through = 1};
  memset(starts, 0, size);
  for (uint32_t at = 0; at < size;) {
    instruction decoded = decode(code + at, size - at);
    usdtkit_flow *flow = &decoded.flow;
    out->stopped = at;
    out->end = !decoded.length ? USDTKIT_SWEEP_UNDEFINED : decoded.vendor ? USDTKIT_SWEEP_VENDOR : USDTKIT_SWEEP_DONE;
    if (out->end == USDTKIT_SWEEP_DONE && flow->kind && out->flows == capacity) out->end = USDTKIT_SWEEP_FULL;
    if (out->end != USDTKIT_SWEEP_DONE) return;
    starts[at] = 1;
    if (is_x86 && code[at] == 0xf0) starts[at + 1] = 2;
    if (flow->kind) {
      flow->at = at;
      flow->length = (uint8_t)decoded.length;
      flow->target += at + (is_x86 ? decoded.length : 0);
      if (flow->kind == USDTKIT_FLOW_INDIRECT && !(flow->flags & USDTKIT_FLOW_MEMORY)) {
        if (flow->condition == indexed) flow->flags |= how;
      }
      if (flow->kind == USDTKIT_FLOW_INDIRECT) flow->condition = 0;
      flows[out->flows++] = *flow;
    }
    /* Padding behind a jump, or behind a call that does not return, is not reached. */
    if (!decoded.nop || out->falls_through) out->falls_through = !flow->kind || flow->kind == USDTKIT_FLOW_BRANCH;
    indexed = decoded.indexed, how = decoded.how;
    at += decoded.length;
  }
  out->stopped = size;
}

void usdtkit_sweep_x86_64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t capacity,
                          usdtkit_sweep *out) {
  sweep(decode_x86_64, 1, code, size, starts, flows, capacity, out);
}

void usdtkit_sweep_aarch64(const uint8_t *code, uint32_t size, uint8_t *starts, usdtkit_flow *flows, uint32_t capacity,
                           usdtkit_sweep *out) {
  sweep(decode_aarch64, 0, code, size, starts, flows, capacity, out);
}

/* Elf64_Sym, as in a file of the same byte order as this machine. */
struct symbol {
  uint32_t name;
  uint8_t info, other;
  uint16_t section;
  uint64_t value, size;
};
struct place {
  uint64_t value, size;
  uint32_t index;
};

static int by_address(const void *left, const void *right) {
  const struct place *a = left, *b = right;
  if (a->value != b->value) return a->value < b->value ? -1 : 1;
  if (a->size != b->size) return a->size > b->size ? -1 : 1;
  return a->index < b->index ? -1 : 1;
}

int64_t usdtkit_functions_by_address(const uint8_t *symbols, uint32_t count, uint64_t *addresses, uint32_t *indexes) {
  struct place *places = malloc((count + 1UL) * sizeof *places);
  if (!places) return -ENOMEM;
  size_t functions = 0;
  for (uint32_t index = 0; index < count; index++) {
    struct symbol symbol;
    memcpy(&symbol, symbols + index * sizeof symbol, sizeof symbol);
    int type = symbol.info & 15;
    if ((type == 2 || type == 10) && symbol.section && symbol.value) /* a function or an indirect one, defined here */
      places[functions++] = (struct place){symbol.value, symbol.size, index};
  }
  qsort(places, functions, sizeof *places, by_address);
  for (size_t at = 0; at < functions; at++) addresses[at] = places[at].value, indexes[at] = places[at].index;
  free(places);
  return (int64_t)functions;
}
