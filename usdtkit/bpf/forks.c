/*
 * Which process was forked from which: program.py puts this behind the prelude of a program that asks for ancestors.
 */
BPF_TABLE("lru_hash", u32, u32, parents, 16384);

/* The process from which this one was forked, so many generations ago, as far as the trace has seen it; else 0. */
static __always_inline u64 ancestor(u32 process, u32 generations) {
  for (u32 n = 0; n < generations; n++) {
    u32 *parent = parents.lookup(&process);
    if (!parent) return 0;
    process = *parent;
  }
  return process;
}
