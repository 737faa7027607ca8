/* A section of call frame information → its entries. Some describe a range of addresses, the others have what
 * descriptions share. The formats are those of DWARF 5, section 6.4, and of the Linux Standard Base, "Exception
 * Frames". */

#include "unwind_reader.h"

enum { LONGEST_AUGMENTATION = 16 };
static const uint64_t most_ranges = 1 << 20, most_commons = 1 << 17;

uint64_t take_address(const reader *r, cursor *c, uint8_t encoding) {
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

int grow(void **things, uint64_t *room, uint64_t count, size_t size, uint64_t most) {
  if (count < *room) return 0;
  if (count >= most) return -E2BIG;
  uint64_t more = *room ? 2 * *room : 256;
  void *grown = realloc(*things, more * size);
  if (!grown) return -ENOMEM;
  *things = grown;
  *room = more;
  return 0;
}

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

int read_commons(reader *r) {
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

int read_ranges(reader *r) {
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
