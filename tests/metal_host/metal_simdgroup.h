// What the threads of a simdgroup and of a threadgroup do together: barriers, exchange of values,
// 8x8 matrices. To run, each thread hands the runtime a pointer to its own values and a function
// that the runtime calls once with the pointers of all; to lint, declarations are enough.
#pragma once
#include "metal_math.h"

#if HOST_LINT
#define HOST_WHERE int = 0
#define HOST_LANE 0
#else
#define HOST_WHERE const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()
#define HOST_LANE host_lane()
#define HOST_EACH(lane, active) \
  for (unsigned lane = 0; lane < 32; lane++) \
    if (active >> lane & 1)
extern "C" {
unsigned host_lane();
void host_barrier(const char* file, unsigned line);
void host_together(const char* file, unsigned line, void* mine,
                   void (*all)(void** lanes, uint32_t active));
void* host_threadgroup_memory(unsigned id, size_t bytes);
}
#endif

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
HOST_FN constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(int(a) | int(b));
}

#if HOST_LINT
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
#define HOST_REDUCTION(name, value) template <class T> T simd_##name(T);
#define HOST_SHUFFLE(name, from) template <class T> T simd_##name(T, ushort);
template <class T> T simd_broadcast_first(T);
ulong host_ballot(bool);
#define HOST_BALLOT(x) host_ballot(x)
#else
HOST_FN void threadgroup_barrier(mem_flags, HOST_WHERE) { host_barrier(file, line); }
HOST_FN void simdgroup_barrier(mem_flags, HOST_WHERE) {
  host_together(file, line, nullptr, nullptr);
}

// ---- reductions, in a butterfly's order; lanes that do not take part are left out
template <class T> struct reduced {
  T mine, result;
};
template <class T, class Combine> void reduce_all(void** lanes, uint32_t active) {
  reduced<T>** lane = (reduced<T>**)lanes;
  T now[32], next[32];
  HOST_EACH(i, active) now[i] = lane[i]->mine;
  for (unsigned step = 1; step < 32; step *= 2) {
    uint32_t both = active;
    for (unsigned i = 0; i < 32; i++) {
      unsigned other = i ^ step;
      bool here = active >> i & 1, there = active >> other & 1;
      if (here || there) {
        next[i] = !there ? now[i] : !here ? now[other] : Combine::of(now[i], now[other]);
        both |= 1u << i;
      }
    }
    active = both;
    for (unsigned i = 0; i < 32; i++) now[i] = next[i];
  }
  for (unsigned i = 0; i < 32; i++)
    if (lane[i]) lane[i]->result = now[i];
}
#define HOST_REDUCTION(name, value) \
  struct combine_##name { \
    template <class T> static T of(T a, T b) { return T(value); } \
  }; \
  template <class T> HOST_FN T simd_##name(T x, HOST_WHERE) { \
    reduced<T> slot = {x, x}; \
    host_together(file, line, &slot, reduce_all<T, combine_##name>); \
    return slot.result; \
  }

// ---- shuffles: each lane names the lane it reads; one that does not take part gives NaN
template <class T> struct shuffled {
  T mine, result;
  unsigned from;
};
template <class T> void shuffle_all(void** lanes, uint32_t active) {
  shuffled<T>** lane = (shuffled<T>**)lanes;
  HOST_EACH(i, active) {
    unsigned from = lane[i]->from & 31;
    if (active >> from & 1)
      lane[i]->result = lane[from]->mine;
    else
      __builtin_memset((void*)&lane[i]->result, 0xFF, sizeof(T));
  }
}
#define HOST_SHUFFLE(name, from) \
  template <class T> HOST_FN T simd_##name(T x, ushort n, HOST_WHERE) { \
    unsigned lane = host_lane(); \
    shuffled<T> slot = {x, x, from}; \
    host_together(file, line, &slot, shuffle_all<T>); \
    return slot.result; \
  }
template <class T> void broadcast_first_all(void** lanes, uint32_t active) {
  reduced<T>** lane = (reduced<T>**)lanes;
  HOST_EACH(i, active) lane[i]->result = lane[__builtin_ctz(active)]->mine;
}
template <class T> HOST_FN T simd_broadcast_first(T x, HOST_WHERE) {
  reduced<T> slot = {x, x};
  host_together(file, line, &slot, broadcast_first_all<T>);
  return slot.result;
}

// ---- votes: the lanes that say yes, and (in the high half) those that take part
inline void ballot_all(void** lanes, uint32_t active) {
  reduced<ulong>** lane = (reduced<ulong>**)lanes;
  ulong votes = ulong(active) << 32;
  HOST_EACH(i, active) votes |= ulong(lane[i]->mine != 0) << i;
  HOST_EACH(i, active) lane[i]->result = votes;
}
HOST_FN ulong host_ballot(bool x, HOST_WHERE) {
  reduced<ulong> slot = {x, 0};
  host_together(file, line, &slot, ballot_all);
  return slot.result;
}
#define HOST_BALLOT(x) host_ballot(x, file, line)
#endif

HOST_REDUCTION(sum, a + b)
HOST_REDUCTION(product, a * b)
HOST_REDUCTION(min, min(a, b))
HOST_REDUCTION(max, max(a, b))
HOST_REDUCTION(and, a & b)
HOST_REDUCTION(or, a | b)
HOST_REDUCTION(xor, a ^ b)
HOST_SHUFFLE(shuffle, n)
HOST_SHUFFLE(broadcast, n)
HOST_SHUFFLE(shuffle_xor, lane ^ n)
HOST_SHUFFLE(shuffle_down, lane + n < 32 ? lane + n : lane)
HOST_SHUFFLE(shuffle_up, lane >= n ? lane - n : lane)

struct simd_vote {
  typedef ulong vote_t;
  ulong lanes;
  HOST_FN explicit simd_vote(vote_t votes) : lanes(votes) {}
  HOST_FN explicit operator vote_t() const { return lanes & 0xffffffffu; }
  HOST_FN bool any() const { return vote_t(*this) != 0; }
  HOST_FN bool all() const { return vote_t(*this) == lanes >> 32; }
};
HOST_FN simd_vote simd_ballot(bool x, HOST_WHERE) { return simd_vote(HOST_BALLOT(x)); }
HOST_FN bool simd_any(bool x, HOST_WHERE) { return simd_vote(HOST_BALLOT(x)).any(); }
HOST_FN bool simd_all(bool x, HOST_WHERE) { return simd_vote(HOST_BALLOT(x)).all(); }

// ---- simdgroup_matrix: each lane holds two neighbours of a row, in Apple's layout
HOST_FN int matrix_row(int lane) { return (lane >> 2 & 4) + (lane >> 1 & 3); }
HOST_FN int matrix_column(int lane) { return (lane >> 1 & 4) + (lane & 1) * 2; }

template <class T, int Rows, int Columns> struct simdgroup_matrix {
  static_assert(Rows == 8 && Columns == 8, "simdgroup_matrix: only 8x8");
  vec<T, 2> elements;
  simdgroup_matrix() = default;
  HOST_FN explicit simdgroup_matrix(T diagonal) {
    int row = matrix_row(HOST_LANE), column = matrix_column(HOST_LANE);
    elements.v[0] = row == column ? diagonal : T(0);
    elements.v[1] = row == column + 1 ? diagonal : T(0);
  }
#if HOST_LINT
  __private vec<T, 2>& thread_elements() __private { return elements; }
#endif
  HOST_FN vec<T, 2>& thread_elements() { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Rows, int Columns>
HOST_FN simdgroup_matrix<T, Rows, Columns> make_filled_simdgroup_matrix(T x) {
  simdgroup_matrix<T, Rows, Columns> filled;
  filled.elements = vec<T, 2>(x, x);
  return filled;
}

#if HOST_LINT
#define HOST_MATRIX_ACCESS(SPACE) \
  template <class T> \
  void simdgroup_load(simdgroup_matrix<T, 8, 8>&, const SPACE T*, \
                      ulong stride = 8, ulong2 origin = ulong2(0), bool transpose = false); \
  template <class T> \
  void simdgroup_store(simdgroup_matrix<T, 8, 8>, SPACE T*, \
                       ulong stride = 8, ulong2 origin = ulong2(0), bool transpose = false);
HOST_MATRIX_ACCESS(__global)
HOST_MATRIX_ACCESS(__local)
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>&,
                                   simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>,
                                   simdgroup_matrix<C, 8, 8>);
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8>&,
                        simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>);
#else
template <class T> struct neighbours {  // aligned as one: a row may start anywhere
  T first, second;
};
template <class T>
HOST_FN void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* p, ulong stride = 8,
                            ulong2 origin = ulong2(0), bool transpose = false) {
  ulong row = matrix_row(HOST_LANE), column = matrix_column(HOST_LANE);
  if (transpose) {
    p += (origin.y + column) * stride + origin.x + row;
    m.elements = vec<T, 2>(p[0], p[stride]);
  } else {
    neighbours<T> pair = *(const neighbours<T>*)(p + (origin.y + row) * stride + origin.x + column);
    m.elements = vec<T, 2>(pair.first, pair.second);
  }
}
template <class T>
HOST_FN void simdgroup_store(simdgroup_matrix<T, 8, 8> m, T* p, ulong stride = 8,
                             ulong2 origin = ulong2(0), bool transpose = false) {
  ulong row = matrix_row(HOST_LANE), column = matrix_column(HOST_LANE);
  if (transpose) {
    p += (origin.y + column) * stride + origin.x + row;
    p[0] = m.elements.x;
    p[stride] = m.elements.y;
  } else {
    neighbours<T> pair = {m.elements.x, m.elements.y};
    *(neighbours<T>*)(p + (origin.y + row) * stride + origin.x + column) = pair;
  }
}

template <class D, class A, class B, class C> struct multiplied {
  vec<D, 2> result;
  vec<A, 2> a;
  vec<B, 2> b;
  vec<C, 2> c;
};
template <class D, class A, class B, class C>
void multiply_all(void** lanes, uint32_t active) {
  multiplied<D, A, B, C>** lane = (multiplied<D, A, B, C>**)lanes;
  float a[8][8], b[8][8], d[8][8];
  float missing = active == 0xffffffffu ? 0.0f : __builtin_nanf("");
  HOST_EACH(l, active) {
    for (int i = 0; i < 2; i++) {
      int row = matrix_row(l), column = matrix_column(l) + i;
      a[row][column] = float(lane[l]->a[i]);
      b[row][column] = float(lane[l]->b[i]);
      d[row][column] = float(lane[l]->c[i]) + missing;
    }
  }
  for (int k = 0; k < 8; k++)
    for (int row = 0; row < 8; row++)
      for (int column = 0; column < 8; column++)
        d[row][column] = __builtin_fmaf(a[row][k], b[k][column], d[row][column]);
  HOST_EACH(l, active) {
    int row = matrix_row(l), column = matrix_column(l);
    lane[l]->result = vec<D, 2>(D(d[row][column]), D(d[row][column + 1]));
  }
}
template <class D, class A, class B, class C>
HOST_FN void simdgroup_multiply_accumulate(
    simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b,
    simdgroup_matrix<C, 8, 8> c, HOST_WHERE) {
  multiplied<D, A, B, C> slot = {vec<D, 2>(0), a.elements, b.elements, c.elements};
  host_together(file, line, &slot, multiply_all<D, A, B, C>);
  d.elements = slot.result;
}
template <class D, class A, class B>
HOST_FN void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                simdgroup_matrix<B, 8, 8> b, HOST_WHERE) {
  auto zero = make_filled_simdgroup_matrix<D, 8, 8>(D(0));
  simdgroup_multiply_accumulate(d, a, b, zero, file, line);
}
#endif
}  // namespace metal
