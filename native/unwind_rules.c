/* The instructions of an entry → states, each of which holds from an address on. They move on to the next address or
 * change a rule (DWARF 5, section 6.4.2). */

#include "unwind_reader.h"

enum { DEEPEST = 32 }; /* states that are remembered; compilers need 2 */

/* A distance in units of the common part. What overflows becomes a distance that no row can have. */
static int64_t scaled(int64_t number, int64_t unit) {
  int64_t product;
  return __builtin_mul_overflow(number, unit, &product) ? INT64_MAX : product;
}

static rule *rule_of(const reader *r, state *s, uint64_t number) {
  return number == r->fp ? &s->frame_pointer : number == r->ra ? &s->return_address : NULL;
}

static void set_rule(const reader *r, state *s, uint64_t number, rule value) {
  rule *place = rule_of(r, s, number);
  if (place) *place = value;
}

/* A rule becomes again what the common part says. */
static void restore(const reader *r, state *s, const state *first, uint64_t number) {
  if (number == r->fp) s->frame_pointer = first->frame_pointer;
  if (number == r->ra) s->return_address = first->return_address;
}

/* Executes one instruction that changes a rule. Returns 0 if it is not known. */
static int change(const reader *r, const common *shared, cursor *c, uint8_t code, state *s) {
  int64_t unit = shared->data_unit;
  uint64_t number, length;
  int64_t distance;
  if (code >> 6 == 2) { /* offset */
    number = code & 0x3f;
    set_rule(r, s, number, (rule){.how = HOW_OFFSET, .offset = scaled((int64_t)take_unsigned(c), unit)});
    return 1;
  }
  switch (code) {
    case 0x05: case 0x11: case 0x2f: /* offset_extended, offset_extended_sf, GNU_negative_offset_extended */
      number = take_unsigned(c);
      distance = code == 0x11 ? take_signed(c) : (int64_t)take_unsigned(c);
      distance = scaled(scaled(distance, unit), code == 0x2f ? -1 : 1);
      set_rule(r, s, number, (rule){.how = HOW_OFFSET, .offset = distance});
      return 1;
    case 0x07: set_rule(r, s, take_unsigned(c), (rule){.how = HOW_UNDEFINED}); return 1;
    case 0x08: set_rule(r, s, take_unsigned(c), (rule){.how = HOW_SAME}); return 1;
    case 0x09: case 0x14: case 0x15: /* register, val_offset, val_offset_sf */
      number = take_unsigned(c);
      take_unsigned(c);
      set_rule(r, s, number, (rule){.how = HOW_OTHER});
      return 1;
    case 0x0c: case 0x12: /* def_cfa, def_cfa_sf */
      s->base = take_unsigned(c);
      s->offset = code == 0x0c ? (int64_t)take_unsigned(c) : scaled(take_signed(c), unit);
      s->expression = NULL;
      return 1;
    /* The next two are not allowed while the rule is an expression. Assembler of libgcrypt ends one so, and unwinders
       take the register with the last offset. */
    case 0x0d: /* def_cfa_register */
      s->base = take_unsigned(c);
      s->expression = NULL;
      return 1;
    case 0x0e: case 0x13: /* def_cfa_offset, def_cfa_offset_sf */
      s->offset = code == 0x0e ? (int64_t)take_unsigned(c) : scaled(take_signed(c), unit);
      return 1;
    case 0x0f: /* def_cfa_expression */
      s->length = take_unsigned(c);
      s->expression = c->at;
      skip(c, s->length);
      return 1;
    case 0x10: case 0x16: /* expression, val_expression */
      number = take_unsigned(c);
      length = take_unsigned(c);
      set_rule(r, s, number,
               (rule){.expression = c->at,
                      .length = (uint32_t)length,
                      .how = code == 0x10 ? HOW_EXPRESSION : HOW_OTHER});
      skip(c, length);
      return 1;
    case 0x2e: take_unsigned(c); return 1; /* GNU_args_size */
    case 0x00: return 1;
    /* AARCH64_negate_ra_state_with_pc and AARCH64_negate_ra_state: the return address is signed, or no more. Where the
       signature is not wanted, it is taken off whatever the table says. */
    case 0x2c: case 0x2d: return r->source->aarch64 != 0;
    default: return 0;
  }
}

/* Reads the instruction's operand if it moves on to another address. Returns whether it does. */
static int moves(const reader *r, const common *shared, cursor *c, uint8_t code, uint64_t *address) {
  uint64_t units;
  if (code >> 6 == 1) {
    units = code & 0x3f;
  } else {
    switch (code) {
      case 0x01: *address = take_address(r, c, shared->encoding); return 1;
      case 0x02: units = take(c, 1); break;
      case 0x03: units = take(c, 2); break;
      case 0x04: units = take(c, 4); break;
      default: return 0;
    }
  }
  *address += units * shared->code_unit;
  return 1;
}

/* Executes the instructions of a common part, which move to no address. */
int run_common(const reader *r, common *shared, cursor *c) {
  while (c->at < c->end && !c->failed) {
    uint8_t code = *c->at++;
    uint64_t address = 0;
    if (moves(r, shared, c, code, &address) || !change(r, shared, c, code, &shared->first)) return 0;
  }
  return !c->failed;
}

int run_range(reader *r, const range *described) {
  const common *shared = &r->commons[described->common];
  const uint8_t *data = shared->section->data;
  r->section = shared->section;
  cursor c = {data + described->at, data + described->end, 0};
  uint64_t address = described->start, end = address + described->size, next = address;
  state s = shared->first, remembered[DEEPEST];
  unsigned depth = 0;
  int fits = 1;
  while (fits && !c.failed && c.at < c.end) {
    uint8_t code = *c.at++;
    if (moves(r, shared, &c, code, &next)) {
      fits = next >= address;
      if (!fits || c.failed || next == address) continue;
      int error = add_state(r, address, &s, shared->signal);
      if (error || next >= end) return error;
      address = next;
    } else if (code >> 6 == 3) {
      restore(r, &s, &shared->first, code & 0x3f);
    } else if (code == 0x06) { /* restore_extended */
      restore(r, &s, &shared->first, take_unsigned(&c));
    } else if (code == 0x0a) { /* remember_state */
      fits = depth < DEEPEST;
      if (fits) remembered[depth++] = s;
    } else if (code == 0x0b) { /* restore_state */
      fits = depth > 0;
      if (fits) s = remembered[--depth];
    } else {
      fits = change(r, shared, &c, code, &s);
    }
  }
  if (!fits || c.failed) return add_row(r, address, other(r, USDTKIT_COUNT_DAMAGED));
  return add_state(r, address, &s, shared->signal);
}
