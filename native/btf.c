/* Names of the kernel's types → numbers, which btf.h describes. The format is Documentation/bpf/btf.rst of Linux. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btf.h"

enum { MAGIC = 0xeb9f, DEEPEST = 8 };
enum { INT = 1, ARRAY = 3, STRUCT = 4, UNION = 5, ENUM = 6, TYPEDEF = 8, FUNC = 12, FUNC_PROTO = 13, VAR = 14,
       DATASEC = 15, DECL_TAG = 17, ENUM64 = 19 };

struct header {
  uint16_t magic;
  uint8_t version, flags;
  uint32_t size, types, types_size, strings, strings_size;
};
struct type {
  uint32_t name, info, size_or_type;
};
struct member {
  uint32_t name, type, offset;
};

struct btf {
  const uint8_t *types;
  const char *strings;
  uint32_t types_size, strings_size;
  uint32_t *places; /* of each type by its number; type 0 is void */
  uint32_t count;
};

static struct type type_at(const struct btf *btf, uint32_t place) {
  struct type type;
  memcpy(&type, btf->types + place, sizeof type);
  return type;
}

static uint32_t kind_of(struct type type) { return type.info >> 24 & 31; }
static uint32_t length_of(struct type type) { return type.info & 0xffff; }

static const char *string_at(const struct btf *btf, uint32_t at) {
  return at < btf->strings_size ? btf->strings + at : ""; /* the last string ends with a NUL, see open_btf */
}

/* The bytes that follow struct type. */
static uint64_t more(struct type type) {
  switch (kind_of(type)) {
  case INT: case VAR: case DECL_TAG: return 4;
  case ARRAY: return 12;
  case STRUCT: case UNION: case DATASEC: case ENUM64: return 12ULL * length_of(type);
  case ENUM: case FUNC_PROTO: return 8ULL * length_of(type);
  default: return 0;
  }
}

static int open_btf(struct btf *btf, const void *data, uint64_t size) {
  struct header header;
  if (size < sizeof header) return -EINVAL;
  memcpy(&header, data, sizeof header);
  uint64_t types = (uint64_t)header.size + header.types, strings = (uint64_t)header.size + header.strings;
  if (header.magic != MAGIC || types + header.types_size > size || strings + header.strings_size > size) return -EINVAL;
  btf->types = (const uint8_t *)data + types;
  btf->strings = (const char *)data + strings;
  btf->types_size = header.types_size;
  btf->strings_size = header.strings_size;
  if (!btf->strings_size || btf->strings[btf->strings_size - 1]) return -EINVAL;
  btf->places = malloc((btf->types_size / sizeof(struct type) + 1) * sizeof *btf->places);
  if (!btf->places) return -ENOMEM;
  btf->count = 1;
  btf->places[0] = 0;
  for (uint64_t at = 0; at + sizeof(struct type) <= btf->types_size;) {
    uint64_t end = at + sizeof(struct type) + more(type_at(btf, (uint32_t)at));
    if (end > btf->types_size) break;
    btf->places[btf->count++] = (uint32_t)at;
    at = end;
  }
  return 0;
}

/* The offset of a member in bytes, or -1. */
static int64_t member_of(const struct btf *btf, uint32_t number, const char *name, int depth) {
  if (!number || number >= btf->count || depth > DEEPEST) return -1;
  struct type type = type_at(btf, btf->places[number]);
  if (kind_of(type) != STRUCT && kind_of(type) != UNION) return -1;
  for (uint32_t index = 0; index < length_of(type); index++) {
    struct member member;
    memcpy(&member, btf->types + btf->places[number] + sizeof type + index * sizeof member, sizeof member);
    int64_t offset = (type.info >> 31 ? member.offset & 0xffffff : member.offset) / 8;
    if (!member.name) {
      int64_t within = member_of(btf, member.type, name, depth + 1);
      if (within >= 0) return offset + within;
    } else if (!strcmp(string_at(btf, member.name), name)) {
      return offset;
    }
  }
  return -1;
}

/* Whether a type is the one that `name` asks for; `*member` is what comes behind a dot. */
static int is_wanted(const struct btf *btf, struct type type, const char *name, const char **member) {
  uint32_t kind = STRUCT;
  *member = NULL;
  if (!strncmp(name, "func:", 5)) kind = FUNC, name += 5;
  else if (!strncmp(name, "typedef:", 8)) kind = TYPEDEF, name += 8;
  if (kind_of(type) != kind) return 0;
  const char *own = string_at(btf, type.name);
  if (kind != STRUCT) return !strcmp(own, name);
  const char *dot = strchr(name, '.');
  *member = dot ? dot + 1 : NULL;
  return dot && strlen(own) == (size_t)(dot - name) && !strncmp(own, name, (size_t)(dot - name));
}

int usdtkit_btf_find(const void *data, uint64_t size, const char *const *names, uint32_t count, int32_t *out) {
  struct btf btf = {0};
  int result = open_btf(&btf, data, size);
  if (result) return result;
  for (uint32_t wanted = 0; wanted < count; wanted++) out[wanted] = -1;
  for (uint32_t number = 1; number < btf.count; number++) {
    struct type type = type_at(&btf, btf.places[number]);
    for (uint32_t wanted = 0; wanted < count; wanted++) {
      const char *member;
      if (out[wanted] < 0 && is_wanted(&btf, type, names[wanted], &member))
        out[wanted] = member ? (int32_t)member_of(&btf, number, member, 0) : (int32_t)number;
    }
  }
  free(btf.places);
  return 0;
}
