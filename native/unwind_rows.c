/* A state → a row of 8 bytes. Expressions are known by their patterns, and what a row cannot say is counted. */

#include "unwind_reader.h"

static const uint64_t most_rows = 1 << 24;

static int is_same(const usdtkit_unwind_row *a, const usdtkit_unwind_row *b) {
  return a->offset == b->offset && a->kinds == b->kinds && a->slot == b->slot;
}

int add_row(reader *r, uint64_t address, usdtkit_unwind_row row) {
  usdtkit_unwind_table *table = r->table;
  row.address = (uint32_t)(address - r->source->lowest);
  while (table->count && table->rows[table->count - 1].address == row.address) table->count--;
  if (table->count && is_same(&table->rows[table->count - 1], &row)) return 0;
  int error = grow((void **)&table->rows, &r->row_room, table->count, sizeof row, most_rows);
  if (!error) table->rows[table->count++] = row;
  return error;
}

usdtkit_unwind_row other(reader *r, int why) {
  r->table->counts[why]++;
  return (usdtkit_unwind_row){.kinds = USDTKIT_FRAME_OTHER};
}

/* Whether `number` is 8 times something between the two, and that. */
static int in_units(int64_t number, int64_t least, int64_t most, int64_t *units) {
  *units = number / 8;
  return number % 8 == 0 && *units >= least && *units <= most;
}

/* Whether an expression is "register + number", and perhaps "what memory has there" and "+ 8" behind it. */
static int is_memory(const uint8_t *expression, uint64_t length, int base, int64_t *offset, const char *rest,
                     size_t size) {
  cursor c = {expression, expression + length, 0};
  if (take(&c, 1) != 0x70u + (unsigned)base) return 0; /* DW_OP_breg0 and so on */
  *offset = take_signed(&c);
  return !c.failed && (size_t)(c.end - c.at) == size && !memcmp(c.at, rest, size);
}

static int is_slot(const rule *rule, int base, int64_t expected) {
  int64_t offset;
  return rule->how == HOW_EXPRESSION && is_memory(rule->expression, rule->length, base, &offset, "", 0) &&
         offset == expected;
}

/* What linkers write for a procedure linkage table: the second instruction of each entry, which begins at a multiple of
 * 16, pushes a number: breg7 8, breg16 0, lit15, and, lit11, ge, lit3, shl, plus. */
static int is_linkage(const state *s, uint8_t *threshold) {
  static const uint8_t head[] = {0x77, 8, 0x80, 0, 0x3f, 0x1a}, tail[] = {0x2a, 0x33, 0x24, 0x22};
  if (s->length != 11 || memcmp(s->expression, head, 6) || memcmp(s->expression + 7, tail, 4)) return 0;
  *threshold = (uint8_t)(s->expression[6] - 0x30);
  return *threshold < 16;
}

static usdtkit_unwind_row row_x86_64(reader *r, const state *s, int signal) {
  enum { RAX = 0, RBP = 6, RSP = 7, R10 = 10, R11 = 11 };
  int64_t offset = s->offset, units, slot = 0;
  int kind, saved = USDTKIT_SAVED_NOT;
  uint8_t threshold = 0;
  if (s->return_address.how == HOW_UNDEFINED) return (usdtkit_unwind_row){.kinds = USDTKIT_FRAME_END};
  if (signal) {
    /* glibc's; these are the places in struct ucontext, where the stack pointer is at its start. */
    if (s->expression && is_memory(s->expression, s->length, RSP, &offset, "\x06", 1) && offset == 160 &&
        is_slot(&s->return_address, RSP, 168) && is_slot(&s->frame_pointer, RSP, 120))
      return (usdtkit_unwind_row){.kinds = USDTKIT_FRAME_SIGNAL};
    return other(r, USDTKIT_COUNT_SIGNAL);
  }
  if (s->return_address.how != HOW_OFFSET || s->return_address.offset != -8)
    return other(r, USDTKIT_COUNT_RETURN_ADDRESS);
  if (!s->expression) {
    switch (s->base) {
      case RSP: kind = USDTKIT_FRAME_SP; break;
      case RBP: kind = USDTKIT_FRAME_FP; break;
      case RAX: kind = USDTKIT_FRAME_RAX; break;
      case R10: kind = USDTKIT_FRAME_R10; break;
      case R11: kind = USDTKIT_FRAME_R11; break;
      default: return other(r, USDTKIT_COUNT_REGISTER);
    }
  } else if (is_linkage(s, &threshold)) {
    kind = USDTKIT_FRAME_PLT;
    offset = 8;
  } else if (is_memory(s->expression, s->length, RBP, &offset, "\x06", 1)) {
    kind = USDTKIT_FRAME_AT_FP;
  } else if (is_memory(s->expression, s->length, RSP, &offset, "\x06", 1)) {
    kind = USDTKIT_FRAME_AT_SP;
  } else if (is_memory(s->expression, s->length, RSP, &offset, "\x06\x23\x08", 3)) {
    kind = USDTKIT_FRAME_BEHIND_SP;
  } else {
    return other(r, USDTKIT_COUNT_EXPRESSION);
  }
  if (!in_units(offset, INT16_MIN, INT16_MAX, &units)) return other(r, USDTKIT_COUNT_DISTANCE);
  if (is_slot(&s->frame_pointer, RBP, 0))
    saved = USDTKIT_SAVED_AT_FP;
  else if (s->frame_pointer.how == HOW_OFFSET && kind != USDTKIT_FRAME_PLT &&
           in_units(s->frame_pointer.offset, -UINT8_MAX, -1, &slot))
    saved = USDTKIT_SAVED_FP;
  else if (s->frame_pointer.how != HOW_SAME && s->frame_pointer.how != HOW_UNDEFINED) {
    r->table->counts[USDTKIT_COUNT_FRAME_POINTER]++;
    saved = USDTKIT_SAVED_LOST;
    slot = 0;
  }
  return (usdtkit_unwind_row){
      .offset = (int16_t)units,
      .kinds = (uint8_t)(kind | saved << 4),
      .slot = kind == USDTKIT_FRAME_PLT ? threshold : (uint8_t)-slot,
  };
}

/* The frame pointer and the return address lie side by side at the lower end of the frame (gcc), or at its upper end
 * (clang). Either may be too far away from the other end for a row. */
static usdtkit_unwind_row row_aarch64(reader *r, const state *s, int signal) {
  const rule *fp = &s->frame_pointer, *ra = &s->return_address;
  int64_t units, slot = 0, place;
  int kind, saved = USDTKIT_SAVED_NOT, fp_is_saved = fp->how == HOW_OFFSET, ra_is_saved = ra->how == HOW_OFFSET;
  if (ra->how == HOW_UNDEFINED) return (usdtkit_unwind_row){.kinds = USDTKIT_FRAME_END};
  if (signal) return (usdtkit_unwind_row){.kinds = USDTKIT_FRAME_SIGNAL};
  if (s->expression) return other(r, USDTKIT_COUNT_EXPRESSION);
  if (s->base == r->sp)
    kind = USDTKIT_FRAME_SP;
  else if (s->base == r->fp)
    kind = USDTKIT_FRAME_FP;
  else
    return other(r, USDTKIT_COUNT_REGISTER);
  if (!in_units(s->offset, INT16_MIN, INT16_MAX, &units)) return other(r, USDTKIT_COUNT_DISTANCE);
  if (!ra_is_saved && ra->how != HOW_SAME) return other(r, USDTKIT_COUNT_RETURN_ADDRESS);
  if (!fp_is_saved && fp->how != HOW_SAME && fp->how != HOW_UNDEFINED) return other(r, USDTKIT_COUNT_FRAME_POINTER);
  if (ra_is_saved && fp_is_saved && fp->offset != ra->offset - 8) return other(r, USDTKIT_COUNT_FRAME_POINTER);
  if (fp_is_saved || ra_is_saved) {
    place = fp_is_saved ? fp->offset : ra->offset;
    if (in_units(place, -UINT8_MAX, -1, &slot)) {
      saved = !ra_is_saved ? USDTKIT_SAVED_FP : fp_is_saved ? USDTKIT_SAVED_PAIR : USDTKIT_SAVED_RA;
      slot = -slot;
    } else if (ra_is_saved && place > INT32_MIN && place < 0 && in_units(s->offset + place, 0, UINT8_MAX, &slot)) {
      saved = fp_is_saved ? USDTKIT_SAVED_PAIR_HIGH : USDTKIT_SAVED_RA_HIGH;
    } else {
      return other(r, USDTKIT_COUNT_DISTANCE);
    }
  }
  return (usdtkit_unwind_row){.offset = (int16_t)units, .kinds = (uint8_t)(kind | saved << 4), .slot = (uint8_t)slot};
}

int add_state(reader *r, uint64_t address, const state *s, int signal) {
  return add_row(r, address, r->source->aarch64 ? row_aarch64(r, s, signal) : row_x86_64(r, s, signal));
}
