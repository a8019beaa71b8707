// Runs a compiled kernel: a fiber for each thread of a threadgroup. The lanes of a simdgroup run
// one after another until each waits, at a simd operation or a barrier, or has returned; then they
// go on. It knows threads, barriers and threadgroup memory; trace.h knows what a kernel touches.
#ifdef __APPLE__
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#endif
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

static const unsigned MAX_THREADS = 1024, LANES = 32;
static const size_t THREADGROUP_BYTES = 32 << 10;
static const size_t STACK_BYTES = 256 << 10, ARENA_BYTES = 128 << 10;
static const size_t GAP = 64;  // between threadgroup variables, so that an overrun is seen

// ---- shared with launch.py, source.py and trace.py
struct ThreadIndices {
  uint32_t in_grid[3], in_group[3], group[3], grid[3], group_size[3], full_size[3], groups[3];
  uint32_t index, lane, simdgroup, simdgroups, full_simdgroups;
};
struct Buffer {
  uintptr_t base;
  uint64_t bytes, writable;
  uint8_t* touched;  // of each byte: 1 read, 2 written
  uint64_t read, written;
};
struct Site {
  uint64_t pc, buffer, is_store, segments, bytes;
};
struct Launch {
  void (*kernel)(void** buffers, const ThreadIndices*);
  void** addresses;
  Buffer* buffers;
  Site* sites;
  uint64_t num_buffers, max_sites, num_sites;
  uint32_t grid[3], group[3];
  uint32_t threads, order, seed, strict, trace, sampled_groups;  // order: forward, reverse, random
  uint64_t threadgroup_bytes;
  char error[1024];
  char problems[1 << 14];  // a line each: offset of the instruction, a blank, what
};

// ---- fibers
enum State { READY, AT_SIMD, AT_BARRIER, DONE };
typedef void (*Together)(void** lanes, uint32_t active);
struct Place {
  const char* file;
  unsigned line;
  bool operator==(const Place& o) const { return line == o.line && !strcmp(file, o.file); }
};
struct Access {
  uintptr_t pc, address;
  uint32_t bytes, buffer;
  bool is_store;
};
struct Fiber {
  jmp_buf resume;
  ucontext_t context;
  bool started = false;
  State state = DONE;
  Place place;
  void* mine;
  Together all;
  ThreadIndices at;
  std::vector<Access> log;  // traced, in sampled threadgroups
};
struct Variable {
  size_t offset, bytes;
};
struct Tracer;

// one OS thread's share of a launch
struct Worker {
  Launch* launch;
  Fiber* fibers = new Fiber[MAX_THREADS];
  char* stacks = memory(MAX_THREADS * STACK_BYTES);
  char* arena = memory(ARENA_BYTES);
  std::map<unsigned, Variable> variables;
  size_t arena_used = 0, declared_bytes = 0;
  jmp_buf scheduler;
  unsigned current = 0, num_threads = 0;
  bool in_kernel = false;  // not while values are exchanged
  uint32_t random;
  uint32_t barriers = 1, simd_barriers[MAX_THREADS / LANES] = {};
  std::string error;
  std::unique_ptr<Tracer> tracer;

  Worker(Launch* l, unsigned id);
  ~Worker();
  static char* memory(size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  }
  Fiber& fiber() { return fibers[current]; }
  bool failed() const { return !error.empty(); }
  void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void wait(State state, Place place);
  void resume(unsigned thread);
  void shuffle(std::vector<unsigned>& order);
  void start(const uint32_t* group);
  bool exchange(unsigned first, unsigned end);
  void run_simdgroup(unsigned first, unsigned end);
  bool pass_barrier();
  void run_threadgroup(const uint32_t* group);
};
static thread_local Worker* worker = nullptr;

#include "trace.h"

Worker::Worker(Launch* l, unsigned id) : launch(l), random(l->seed * 2 + id * 7919 + 1) {
  if (l->trace) tracer.reset(new Tracer(*l));
}
Worker::~Worker() {
  munmap(stacks, MAX_THREADS * STACK_BYTES);
  munmap(arena, ARENA_BYTES);
  delete[] fibers;
}
void Worker::fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!failed()) error = text;
}

static void fiber_main() {
  Worker* w = worker;  // a fiber stays on the OS thread that made it
  for (;;) {
    w->launch->kernel(w->launch->addresses, &w->fiber().at);
    w->wait(DONE, {"", 0});
  }
}
void __attribute__((noinline)) Worker::wait(State state, Place place) {
  fiber().state = state;
  fiber().place = place;
  if (!_setjmp(fiber().resume)) _longjmp(scheduler, 1);
}
void Worker::resume(unsigned thread) {
  current = thread;
  if (_setjmp(scheduler)) {
    in_kernel = false;
    return;
  }
  in_kernel = true;
  Fiber& f = fiber();
  if (f.started) _longjmp(f.resume, 1);
  f.started = true;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stacks + thread * STACK_BYTES;
  f.context.uc_stack.ss_size = STACK_BYTES;
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
  setcontext(&f.context);
}

// ---- what kernels call
extern "C" {
unsigned host_lane() { return worker->fiber().at.lane; }
void host_barrier(const char* file, unsigned line) { worker->wait(AT_BARRIER, {file, line}); }
void host_together(const char* file, unsigned line, void* mine, Together all) {
  Fiber& f = worker->fiber();
  f.mine = mine;
  f.all = all;
  worker->wait(AT_SIMD, {file, line});
}
void* host_threadgroup_memory(unsigned id, size_t bytes) {
  Worker* w = worker;
  if (!w->variables.count(id)) {
    w->declared_bytes += (bytes + 15) / 16 * 16;
    size_t offset = (w->arena_used + GAP + 63) / 64 * 64;
    if (w->declared_bytes > THREADGROUP_BYTES || offset + bytes + GAP > ARENA_BYTES) {
      w->fail("%zu bytes of threadgroup memory, of which there are %zu", w->declared_bytes,
              THREADGROUP_BYTES);
      _longjmp(w->scheduler, 1);
    }
    w->variables[id] = {offset, bytes};
    w->arena_used = offset + bytes;
    memset(w->arena + offset, 0xFF, bytes);
  }
  return w->arena + w->variables[id].offset;
}
}

// ---- scheduling
void Worker::shuffle(std::vector<unsigned>& order) {
  if (launch->order == 1) std::reverse(order.begin(), order.end());
  if (launch->order != 2) return;
  for (size_t i = order.size(); i > 1; i--) {
    random = random * 1664525u + 1013904223u;
    std::swap(order[i - 1], order[(random >> 8) % i]);
  }
}

void Worker::start(const uint32_t* group) {
  uint32_t size[3], full = 1;
  num_threads = 1;
  for (int k = 0; k < 3; k++) {
    size[k] = std::min(launch->group[k], launch->grid[k] - group[k] * launch->group[k]);
    num_threads *= size[k];
    full *= launch->group[k];
  }
  for (unsigned i = 0; i < num_threads; i++) {
    fibers[i].state = READY;
    ThreadIndices& at = fibers[i].at;
    const uint32_t position[3] = {i % size[0], i / size[0] % size[1], i / (size[0] * size[1])};
    for (int k = 0; k < 3; k++) {
      at.in_group[k] = position[k];
      at.group[k] = group[k];
      at.in_grid[k] = group[k] * launch->group[k] + position[k];
      at.grid[k] = launch->grid[k];
      at.group_size[k] = size[k];
      at.full_size[k] = launch->group[k];
      at.groups[k] = (launch->grid[k] - 1) / launch->group[k] + 1;
    }
    at.index = i;
    at.lane = i % LANES;
    at.simdgroup = i / LANES;
    at.simdgroups = (num_threads - 1) / LANES + 1;
    at.full_simdgroups = (full - 1) / LANES + 1;
  }
  for (auto& [id, variable] : variables) memset(arena + variable.offset, 0xFF, variable.bytes);
}

// The simd operation that the first waiting lane is at, for all lanes at it; false: none waits.
bool Worker::exchange(unsigned first, unsigned end) {
  Fiber* leader = nullptr;
  for (unsigned i = first; i < end && !leader; i++)
    if (fibers[i].state == AT_SIMD) leader = &fibers[i];
  if (!leader) return false;
  void* lanes[LANES] = {};
  uint32_t active = 0, num_active = 0;
  for (unsigned i = first; i < end; i++) {
    Fiber& f = fibers[i];
    if (f.state != AT_SIMD || !(f.place == leader->place) || f.all != leader->all) continue;
    lanes[i - first] = f.mine;
    active |= 1u << (i - first);
    num_active++;
    f.state = READY;
  }
  if (launch->strict && num_active != end - first)
    fail("%s:%u: simd operation reached by %u of %u lanes", leader->place.file, leader->place.line,
         num_active, end - first);
  if (leader->all)
    leader->all(lanes, active);
  else
    simd_barriers[first / LANES]++;  // no other operation orders memory
  return true;
}

void Worker::run_simdgroup(unsigned first, unsigned end) {
  std::vector<unsigned> order(end - first);
  std::iota(order.begin(), order.end(), first);
  shuffle(order);
  do {
    for (unsigned i : order) {
      if (fibers[i].state == READY) resume(i);
      if (failed()) return;
    }
  } while (exchange(first, end) && !failed());
}

// All threads that have not returned wait at a barrier: let them go on; false: none is left.
bool Worker::pass_barrier() {
  Fiber *here = nullptr, *elsewhere = nullptr;
  unsigned num_done = 0;
  for (unsigned i = 0; i < num_threads; i++) {
    Fiber& f = fibers[i];
    if (f.state == DONE)
      num_done++;
    else if (!here)
      here = &f;
    else if (!(f.place == here->place))
      elsewhere = &f;
  }
  if (!here) return false;
  if (elsewhere)
    fail("%s:%u: barrier that not all threads reach: others wait at %s:%u", here->place.file,
         here->place.line, elsewhere->place.file, elsewhere->place.line);
  else if (num_done && launch->strict)
    fail("%s:%u: barrier that not all threads reach: %u of %u have returned", here->place.file,
         here->place.line, num_done, num_threads);
  barriers++;
  for (unsigned i = 0; i < num_threads; i++)
    if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
  return true;
}

void Worker::run_threadgroup(const uint32_t* group) {
  start(group);
  barriers++;
  if (tracer) tracer->begin_group(*this);
  std::vector<unsigned> simdgroups((num_threads - 1) / LANES + 1);
  std::iota(simdgroups.begin(), simdgroups.end(), 0);
  do {
    shuffle(simdgroups);
    for (unsigned s : simdgroups) {
      run_simdgroup(s * LANES, std::min(num_threads, (s + 1) * LANES));
      if (failed()) return;
    }
  } while (pass_barrier() && !failed());
  if (tracer) tracer->end_group(*this);
}

// ---- an access to no memory at all ends the launch, not the process
static struct sigaction previous[2];
static const int FAULTS[2] = {SIGSEGV, SIGBUS};
static void on_fault(int, siginfo_t* info, void*) {
  Worker* w = worker;
  if (w && w->in_kernel) {
    const uint32_t* at = w->fiber().at.in_grid;
    w->fail("access to an address that is not mapped (%p), by thread (%u, %u, %u)", info->si_addr,
            at[0], at[1], at[2]);
    _longjmp(w->scheduler, 1);
  }
  for (int i = 0; i < 2; i++) sigaction(FAULTS[i], &previous[i], nullptr);
}
static void catch_faults() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 2; i++) sigaction(FAULTS[i], &action, &previous[i]);
}
static void release_faults() {
  for (int i = 0; i < 2; i++) sigaction(FAULTS[i], &previous[i], nullptr);
}

// ---- a launch
static void work(Launch& launch, unsigned id, std::atomic<uint64_t>& next, std::mutex& mutex) {
  Worker w(&launch, id);
  worker = &w;
  std::vector<char> signal_stack(64 << 10);
  stack_t alternative = {}, before;
  alternative.ss_sp = signal_stack.data();
  alternative.ss_size = signal_stack.size();
  sigaltstack(&alternative, &before);
  uint64_t groups[3], total = 1;
  for (int k = 0; k < 3; k++) {
    groups[k] = (launch.grid[k] - 1) / launch.group[k] + 1;
    total *= groups[k];
  }
  for (uint64_t i; !w.failed() && (i = next++) < total;) {
    if (launch.order == 1) i = total - 1 - i;
    if (launch.order == 2)  // a prime that does not divide the total: each comes once
      i = (i * (total % 7919 ? 7919 : 7907) + launch.seed) % total;
    const uint32_t group[3] = {uint32_t(i % groups[0]), uint32_t(i / groups[0] % groups[1]),
                               uint32_t(i / (groups[0] * groups[1]))};
    w.run_threadgroup(group);
  }
  sigaltstack(&before, nullptr);
  worker = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (w.failed()) {
    next = total;  // the others stop, too
    if (!launch.error[0]) snprintf(launch.error, sizeof launch.error, "%s", w.error.c_str());
  }
  launch.threadgroup_bytes = std::max<uint64_t>(launch.threadgroup_bytes, w.declared_bytes);
  if (w.tracer) w.tracer->report(launch);
}

extern "C" void host_launch(Launch* launch) {
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  catch_faults();
  std::vector<std::thread> helpers;
  for (unsigned id = 1; id < launch->threads; id++)
    helpers.emplace_back(work, std::ref(*launch), id, std::ref(next), std::ref(mutex));
  work(*launch, 0, next, mutex);
  for (auto& helper : helpers) helper.join();
  release_faults();
}
