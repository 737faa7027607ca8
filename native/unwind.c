/* Call frame information → rows; unwind.h describes them. The format is that of DWARF 5, section 6.4, and of the Linux
 * Standard Base, "Exception Frames". A section is a sequence of entries. Some describe a range of addresses by a
 * program, whose instructions move on to the next address or change a rule. The others have what descriptions share. */

#include "unwind.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  PAGE_BITS = 12,
  SHORTEST_GAP = 32, /* the padding between functions is shorter, and no code */
  DEEPEST = 32,      /* states that are remembered; compilers need 2 */
  LONGEST_AUGMENTATION = 16
};
static const uint64_t most_rows = 1 << 24, most_ranges = 1 << 20, most_commons = 1 << 17;

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

static uint64_t take(cursor *c, unsigned size) {
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

static void skip(cursor *c, uint64_t size) {
  if ((uint64_t)(c->end - c->at) < size) {
    c->failed = 1;
    size = (uint64_t)(c->end - c->at);
  }
  c->at += size;
}

/* A number of varying length, with its sign if it `is_signed`. */
static uint64_t take_varying(cursor *c, int is_signed) {
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

static uint64_t take_unsigned(cursor *c) { return take_varying(c, 0); }
static int64_t take_signed(cursor *c) { return (int64_t)take_varying(c, 1); }

/* A distance in units of the common part. What overflows becomes a distance that no row can have. */
static int64_t scaled(int64_t number, int64_t unit) {
  int64_t product;
  return __builtin_mul_overflow(number, unit, &product) ? INT64_MAX : product;
}

/* An address that is encoded as `encoding`, one of DW_EH_PE_*, says. */
static uint64_t take_address(const reader *r, cursor *c, uint8_t encoding) {
  uint64_t here = r->section->address + (uint64_t)(c->at - r->section->data), value;
  switch (encoding & 0x0f) {
    case 0x00: case 0x04: case 0x0c: value = take(c, 8); break;
    case 0x01: value = take_unsigned(c); break;
    case 0x02: value = take(c, 2); break;
    case 0x03: value = take(c, 4); break;
    case 0x09: value = (uint64_t)take_signed(c); break;
    case 0x0a: value = (uint64_t)(int64_t)(int16_t)take(c, 2); break;
    case 0x0b: value = (uint64_t)(int64_t)(int32_t)take(c, 4); break;
    default: c->failed = 1; return 0;
  }
  switch (encoding & 0xf0) {
    case 0x00: return value;
    case 0x10: return value + here;
    default: c->failed = 1; return 0; /* relative to what this reader does not know */
  }
}

/* Whether `count` things of `size` bytes fit, with one more. */
static int grow(void **things, uint64_t *room, uint64_t count, size_t size, uint64_t most) {
  if (count < *room) return 0;
  if (count >= most) return -E2BIG;
  uint64_t more = *room ? 2 * *room : 256;
  void *grown = realloc(*things, more * size);
  if (!grown) return -ENOMEM;
  *things = grown;
  *room = more;
  return 0;
}

static int is_same(const usdtkit_unwind_row *a, const usdtkit_unwind_row *b) {
  return a->offset == b->offset && a->kinds == b->kinds && a->slot == b->slot;
}

static int add_row(reader *r, uint64_t address, usdtkit_unwind_row row) {
  usdtkit_unwind_table *table = r->table;
  row.address = (uint32_t)(address - r->source->lowest);
  while (table->count && table->rows[table->count - 1].address == row.address) table->count--;
  if (table->count && is_same(&table->rows[table->count - 1], &row)) return 0;
  int error = grow((void **)&table->rows, &r->row_room, table->count, sizeof row, most_rows);
  if (!error) table->rows[table->count++] = row;
  return error;
}

/* State → row */

static usdtkit_unwind_row other(reader *r, int why) {
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

static int add_state(reader *r, uint64_t address, const state *s, int signal) {
  return add_row(r, address, r->source->aarch64 ? row_aarch64(r, s, signal) : row_x86_64(r, s, signal));
}

/* Instructions → states */

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
static int run_common(const reader *r, common *shared, cursor *c) {
  while (c->at < c->end && !c->failed) {
    uint8_t code = *c->at++;
    uint64_t address = 0;
    if (moves(r, shared, c, code, &address) || !change(r, shared, c, code, &shared->first)) return 0;
  }
  return !c->failed;
}

static int run_range(reader *r, const range *described) {
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

/* Entries → common parts and ranges */

/* One entry of the section: what it has behind its head, and where the common part is, if it is not one itself. */
typedef struct {
  uint64_t place, common;
  int is_common;
  cursor content;
} entry;

/* Reads the head of the entry at `next`, and moves on to the one behind it. Returns 1 if there is one, 0 at the end,
 * and -EINVAL if it is larger than the section. */
static int take_entry(const usdtkit_unwind_section *section, uint64_t *next, entry *found) {
  while (section->size - *next >= 4) {
    cursor c = {section->data + *next, section->data + section->size, 0};
    uint64_t place = *next, length = take(&c, 4);
    if (!length && section->kind == USDTKIT_EH_FRAME_ENDED) return 0;
    if (!length) { /* the end of what came from one file */
      *next += 4;
      continue;
    }
    /* The largest lengths announce one of 8 bytes, for sections of more than 4 GB. */
    if (length < 4 || length > section->size - place - 4) return -EINVAL;
    c.end = c.at + length;
    uint64_t id = take(&c, 4);
    *found = (entry){.place = place, .content = c};
    if (section->kind == USDTKIT_DEBUG_FRAME) {
      found->is_common = id == UINT32_MAX;
      found->common = id;
    } else {
      found->is_common = id == 0;
      found->common = id <= place + 4 ? place + 4 - id : UINT64_MAX; /* it is that far back from itself */
    }
    *next = place + 4 + length;
    return 1;
  }
  return 0;
}

static int read_common(const reader *r, common *shared, cursor *c) {
  uint64_t version = take(c, 1);
  int debug = r->section->kind == USDTKIT_DEBUG_FRAME;
  if (version != 1 && version != 3 && !(debug && version == 4)) return 0;
  char letters[LONGEST_AUGMENTATION + 1];
  unsigned count = 0;
  while ((letters[count] = (char)take(c, 1)) && !c->failed)
    if (++count > LONGEST_AUGMENTATION) return 0;
  if (version == 4 && take(c, 2) != 8) return 0; /* addresses of 8 bytes, and no segments */
  shared->code_unit = take_unsigned(c);
  shared->data_unit = take_signed(c);
  uint64_t return_address = version == 1 ? take(c, 1) : take_unsigned(c);
  if (c->failed || return_address != r->ra || shared->code_unit > UINT16_MAX) return 0;
  if (count && letters[0] != 'z') return 0;
  if (count) {
    uint64_t size = take_unsigned(c);
    cursor extra = *c;
    skip(c, size);
    extra.end = c->at;
    shared->augmented = 1;
    for (unsigned n = 1; n < count; n++) {
      uint8_t encoding;
      switch (letters[n]) {
        case 'R': shared->encoding = (uint8_t)take(&extra, 1); break;
        case 'L': take(&extra, 1); break;
        case 'P':
          encoding = (uint8_t)take(&extra, 1);
          if (encoding == 0x50) return 0; /* aligned, which no compiler uses */
          take_address(r, &extra, encoding & 0x0f);
          break;
        case 'S': shared->signal = 1; break;
        case 'B': case 'G': break; /* aarch64: by which key return addresses are signed, and tagged memory */
        default: return 0;
      }
    }
    if (extra.failed) return 0;
  }
  return run_common(r, shared, c);
}

static int read_commons(reader *r) {
  uint64_t *next = &r->table->stopped;
  *next = 0;
  r->commons_before = r->common_count;
  entry found;
  int more;
  while ((more = take_entry(r->section, next, &found)) > 0) {
    if (!found.is_common) continue;
    int error = grow((void **)&r->commons, &r->common_room, r->common_count, sizeof *r->commons, most_commons);
    if (error) return error;
    common *shared = &r->commons[r->common_count++];
    *shared = (common){.section = r->section, .place = (uint32_t)found.place, .first.base = UINT64_MAX};
    shared->usable = (uint8_t)read_common(r, shared, &found.content);
  }
  return more;
}

/* The common part at a place of the section: mostly that of the range before. */
static const common *find_common(const reader *r, uint64_t place, const common *last) {
  if (last && last->place == place) return last;
  uint64_t low = r->commons_before, high = r->common_count;
  while (low < high) {
    uint64_t middle = (low + high) / 2;
    if (r->commons[middle].place < place)
      low = middle + 1;
    else
      high = middle;
  }
  return low < r->common_count && r->commons[low].place == place ? &r->commons[low] : NULL;
}

static int is_code(const usdtkit_unwind_source *source, uint64_t start, uint64_t size) {
  for (uint32_t n = 0; n < source->code_count; n++) {
    const usdtkit_unwind_code *code = &source->code[n];
    if (start >= code->start && start < code->end) return size <= code->end - start;
  }
  return 0;
}

static int read_ranges(reader *r) {
  uint64_t next = 0;
  const common *shared = NULL;
  entry found;
  while (take_entry(r->section, &next, &found) > 0) {
    if (found.is_common) continue;
    r->table->counts[USDTKIT_COUNT_RANGES]++;
    shared = find_common(r, found.common, shared);
    cursor c = found.content;
    uint64_t start = 0, size = 0;
    if (shared && shared->usable) {
      start = take_address(r, &c, shared->encoding);
      size = take_address(r, &c, shared->encoding & 0x0f);
      if (shared->augmented) skip(&c, take_unsigned(&c));
    }
    if (!shared || !shared->usable || c.failed) {
      r->table->counts[USDTKIT_COUNT_UNREADABLE]++;
      continue;
    }
    if (!size || !is_code(r->source, start, size)) {
      r->table->counts[USDTKIT_COUNT_OUTSIDE]++;
      continue;
    }
    int error = grow((void **)&r->ranges, &r->range_room, r->range_count, sizeof *r->ranges, most_ranges);
    if (error) return error;
    r->ranges[r->range_count++] = (range){
        .start = start,
        .size = (uint32_t)size,
        .common = (uint32_t)(shared - r->commons),
        .at = (uint32_t)(c.at - r->section->data),
        .end = (uint32_t)(c.end - r->section->data),
    };
  }
  return 0;
}

/* Sorts by where ranges start, 11 bits of that at a time. Those that start together stay in the order in which they
 * were read. */
static int sort_ranges(reader *r) {
  enum { BITS = 11, VALUES = 1 << BITS };
  uint64_t count = r->range_count, n = 1;
  while (n < count && r->ranges[n].start >= r->ranges[n - 1].start) n++;
  if (n >= count) return 0;
  range *from = r->ranges, *to = malloc(count * sizeof *to);
  if (!to) return -ENOMEM;
  for (unsigned shift = 0; shift < 32; shift += BITS) {
    uint32_t places[VALUES + 1] = {0};
    for (n = 0; n < count; n++) places[((from[n].start - r->source->lowest) >> shift) % VALUES + 1]++;
    for (n = 1; n < VALUES; n++) places[n] += places[n - 1];
    for (n = 0; n < count; n++) to[places[((from[n].start - r->source->lowest) >> shift) % VALUES]++] = from[n];
    range *sorted = to;
    to = from;
    from = sorted;
  }
  r->ranges = from;
  free(to);
  return 0;
}

static int make_rows(reader *r) {
  const usdtkit_unwind_row none = {.kinds = USDTKIT_FRAME_NONE};
  uint64_t end = r->source->lowest; /* of what has rows */
  int signal = 0, error = add_row(r, end, none);
  for (uint64_t n = 0; n < r->range_count && !error; n++) {
    const range *described = &r->ranges[n];
    if (described->start < end) {
      r->table->counts[USDTKIT_COUNT_OVERLAPPING]++;
      continue;
    }
    /* A thread can be seen behind the last instruction of a signal's frame, a system call that does not return. */
    if (described->start - end >= SHORTEST_GAP) error = add_row(r, end + (uint64_t)signal, none);
    if (!error) error = run_range(r, described);
    end = described->start + described->size;
    signal = r->commons[described->common].signal;
  }
  return error ? error : add_row(r, end + (uint64_t)signal, none);
}

int usdtkit_unwind_read(const usdtkit_unwind_source *source, usdtkit_unwind_table *table) {
  memset(table, 0, sizeof *table);
  reader r = {.source = source, .table = table, .sp = 7, .fp = 6, .ra = 16};
  if (source->aarch64) r.sp = 31, r.fp = 29, r.ra = 30;
  for (uint32_t n = 0; n < source->code_count; n++)
    if (source->code[n].start < source->lowest || source->code[n].end - source->lowest >= UINT32_MAX) return -ERANGE;
  int error = 0;
  for (uint32_t n = 0; n < source->section_count && !error; n++) {
    r.section = &source->sections[n];
    error = r.section->size > UINT32_MAX ? -E2BIG : read_commons(&r);
    if (!error) error = read_ranges(&r);
  }
  if (!error) error = sort_ranges(&r);
  if (!error) error = make_rows(&r);
  free(r.commons);
  free(r.ranges);
  if (error) usdtkit_unwind_free(table);
  return error;
}

void usdtkit_unwind_free(usdtkit_unwind_table *table) {
  free(table->rows);
  table->rows = NULL;
  table->count = 0;
}

void usdtkit_unwind_index(const usdtkit_unwind_table *table, uint32_t *index, uint32_t pages) {
  uint64_t row = 0;
  for (uint32_t page = 0; page < pages; page++) {
    while (row + 1 < table->count && table->rows[row + 1].address <= (uint64_t)page << PAGE_BITS) row++;
    index[page] = (uint32_t)row;
  }
}
