// What a traced kernel touches. It is compiled with -fsanitize=thread,alignment, and the functions
// that this calls at every access are ours, at the end. Included by runtime.cpp.
#pragma once

// the last write of a byte of threadgroup memory and its last two readers
struct Toucher {
  uint32_t thread_plus_1, barrier, simd_barrier;
};
struct Shadow {
  Toucher writer, readers[2];
  bool written;
};

struct Tracer {
  Launch& launch;
  std::vector<Shadow> shadow;
  std::set<std::pair<uintptr_t, int>> reported;
  std::string problems;
  std::map<std::tuple<uintptr_t, uint32_t, bool>, Site> sites;
  std::map<uintptr_t, bool> kernel_pages;
  uintptr_t image;
  uint64_t groups = 0;

  explicit Tracer(Launch& l) : launch(l), shadow(ARENA_BYTES), image(image_of(l.kernel)) {}
  static uintptr_t image_of(const void* address) {
    Dl_info info;
    return dladdr(address, &info) ? (uintptr_t)info.dli_fbase : 0;
  }
  static uintptr_t image_of(void (*f)(void**, const ThreadIndices*)) {
    return image_of((const void*)f);
  }
  bool is_kernels_own(uintptr_t address) {  // its tables of constants
    auto [page, is_new] = kernel_pages.try_emplace(address >> 12, false);
    if (is_new) page->second = image_of((const void*)address) == image;
    return page->second;
  }
  bool sampling() const { return groups <= launch.sampled_groups; }

  void begin_group(Worker& w) {
    groups++;
    for (size_t i = 0; i < w.arena_used; i++) shadow[i].written = false;
    for (unsigned i = 0; i < w.num_threads; i++) w.fibers[i].log.clear();
  }
  void end_group(Worker& w) {
    if (!sampling()) return;
    for (unsigned first = 0; first < w.num_threads; first += LANES)
      count_segments(w.fibers + first, std::min(LANES, w.num_threads - first));
  }

  // The n-th time that lanes execute one instruction is one access of the simdgroup.
  void count_segments(const Fiber* lanes, unsigned num_lanes) {
    std::map<std::pair<uintptr_t, unsigned>, std::vector<const Access*>> together;
    for (unsigned i = 0; i < num_lanes; i++) {
      std::map<uintptr_t, unsigned> times;
      for (const Access& a : lanes[i].log) together[{a.pc, times[a.pc]++}].push_back(&a);
    }
    for (auto& [when, accesses] : together) {
      const Access& any = *accesses[0];
      std::set<uintptr_t> segments;
      Site& site = sites[{any.pc, any.buffer, any.is_store}];
      for (const Access* a : accesses) {
        site.bytes += a->bytes;
        for (uintptr_t s = a->address / 64; s <= (a->address + a->bytes - 1) / 64; s++)
          segments.insert(s);
      }
      site.segments += segments.size();
    }
  }

  void problem(uintptr_t pc, int kind, const char* format, ...)
      __attribute__((format(printf, 4, 5))) {
    if (!reported.insert({pc, kind}).second) return;  // once a place
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    problems += std::to_string(pc - image) + " " + text + "\n";
  }

  void access(Worker& w, Access a) {
    if (a.address - (uintptr_t)w.stacks < MAX_THREADS * STACK_BYTES) return;
    if (a.address - (uintptr_t)w.fibers < MAX_THREADS * sizeof(Fiber)) return;
    uintptr_t offset = a.address - (uintptr_t)w.arena;
    if (offset < ARENA_BYTES)
      threadgroup_access(w, a, offset);
    else if (!device_access(w, a) && !is_kernels_own(a.address))
      outside(w, a);
  }

  void threadgroup_access(Worker& w, const Access& a, size_t offset) {
    const char* verb = a.is_store ? "write" : "read";
    bool inside = false;
    for (auto& [id, v] : w.variables)
      inside |= offset >= v.offset && offset + a.bytes <= v.offset + v.bytes;
    if (!inside) return problem(a.pc, 1, "threadgroup memory: %s out of bounds", verb);
    const ThreadIndices& at = w.fiber().at;
    const Toucher me = {at.index + 1, w.barriers, w.simd_barriers[at.simdgroup]};
    for (size_t i = offset; i < offset + a.bytes; i++) {
      Shadow& s = shadow[i];
      const Toucher* other = unordered(s.writer, me) ? &s.writer : nullptr;
      for (const Toucher& reader : s.readers)
        if (a.is_store && !other && unordered(reader, me)) other = &reader;
      if (other)
        problem(a.pc, 2, "race in threadgroup memory: %s by thread %u, %s by thread %u", verb,
                at.index, other == &s.writer ? "write" : "read", other->thread_plus_1 - 1);
      if (!a.is_store && !s.written)
        problem(a.pc, 3, "threadgroup memory: read before it was written, uninitialised");
      if (a.is_store) {
        s.writer = me;
        s.written = true;
      } else {
        if (s.readers[0].thread_plus_1 != me.thread_plus_1) s.readers[1] = s.readers[0];
        s.readers[0] = me;
      }
    }
  }
  // by different threads with no threadgroup barrier between, nor a simdgroup's within one
  static bool unordered(const Toucher& a, const Toucher& b) {
    if (!a.thread_plus_1 || a.thread_plus_1 == b.thread_plus_1) return false;
    bool same_simdgroup = (a.thread_plus_1 - 1) / LANES == (b.thread_plus_1 - 1) / LANES;
    return a.barrier == b.barrier && !(same_simdgroup && a.simd_barrier != b.simd_barrier);
  }

  bool device_access(Worker& w, Access& a) {
    for (uint32_t i = 0; i < launch.num_buffers; i++) {
      Buffer& b = launch.buffers[i];
      if (a.address < b.base || a.address + a.bytes > b.base + b.bytes) continue;
      if (a.is_store && !b.writable) problem(a.pc, 4, "buffer %u: write to an input", i);
      (a.is_store ? b.written : b.read) += a.bytes;
      uint8_t* touched = b.touched + (a.address - b.base);
      for (uint32_t k = 0; k < a.bytes; k++) touched[k] |= a.is_store ? 2 : 1;
      a.buffer = i;
      if (sampling()) w.fiber().log.push_back(a);
      return true;
    }
    return false;
  }

  uint32_t nearest_buffer(uintptr_t address) const {
    auto distance = [&](const Buffer& b) {
      uintptr_t end = b.base + b.bytes;
      return address < b.base ? b.base - address : address - std::min(address, end);
    };
    uint32_t nearest = 0;
    for (uint32_t i = 1; i < launch.num_buffers; i++)
      if (distance(launch.buffers[i]) < distance(launch.buffers[nearest])) nearest = i;
    return nearest;
  }
  void outside(Worker& w, const Access& a) {
    uint32_t i = nearest_buffer(a.address);
    const Buffer& b = launch.buffers[i];
    const uint32_t* at = w.fiber().at.in_grid;
    problem(a.pc, 5,
            "buffer %u: %s of %u bytes out of bounds, at byte %ld of %lu, by thread (%u, %u, %u)",
            i, a.is_store ? "write" : "read", a.bytes, long(a.address - b.base),
            (unsigned long)b.bytes, at[0], at[1], at[2]);
  }
  void misaligned(Worker& w, uintptr_t pc, uintptr_t address) {
    if (address - (uintptr_t)w.arena < ARENA_BYTES)
      return problem(pc, 6, "threadgroup memory: misaligned access");
    uint32_t i = nearest_buffer(address);
    problem(pc, 6, "buffer %u: misaligned access at byte %ld", i,
            long(address - launch.buffers[i].base));
  }

  void report(Launch& l) {
    snprintf(l.problems, sizeof l.problems, "%s", problems.c_str());
    for (auto& [key, site] : sites) {
      if (l.num_sites == l.max_sites) return;
      auto [pc, buffer, is_store] = key;
      l.sites[l.num_sites++] = {pc - image, buffer, is_store, site.segments, site.bytes};
    }
  }
};

// ---- the functions that -fsanitize=thread,alignment calls
static void traced(void* address, size_t bytes, bool is_store, void* return_address) {
  Worker* w = worker;
  if (!w || !w->in_kernel || !w->tracer || !bytes) return;
  w->in_kernel = false;
  uintptr_t pc = (uintptr_t)return_address - 1;
  w->tracer->access(*w, {pc, (uintptr_t)address, (uint32_t)bytes, 0, is_store});
  w->in_kernel = true;
}
#define CALLER __builtin_return_address(0)
#define HOOKS(n) \
  void __tsan_read##n(void* p) { traced(p, n, false, CALLER); } \
  void __tsan_write##n(void* p) { traced(p, n, true, CALLER); } \
  void __tsan_unaligned_read##n(void* p) { traced(p, n, false, CALLER); } \
  void __tsan_unaligned_write##n(void* p) { traced(p, n, true, CALLER); } \
  void __tsan_read_write##n(void* p) { \
    traced(p, n, false, CALLER); \
    traced(p, n, true, CALLER); \
  }
extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t n) { traced(p, n, false, CALLER); }
void __tsan_write_range(void* p, size_t n) { traced(p, n, true, CALLER); }
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  traced((void*)from, n, false, CALLER);
  traced(to, n, true, CALLER);
  return memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  traced(to, n, true, CALLER);
  return memset(to, value, n);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __ubsan_handle_type_mismatch_v1(void*, uintptr_t address) {
  Worker* w = worker;
  if (!w || !w->in_kernel || !w->tracer) return;
  w->in_kernel = false;
  w->tracer->misaligned(*w, (uintptr_t)CALLER - 1, address);
  w->in_kernel = true;
}
}
