// Metal's functions of numbers, each for float, half and bfloat, and by component for vectors.
#pragma once
#include "metal_types.h"

namespace metal {
// ---- functions of one, two and three values, each also by component
#define HOST_MAP1(name, result) \
  template <class V, class R = typename V::value> HOST_FN typename R::result name(V from) { \
    R x(from); \
    typename R::result r; \
    for (int i = 0; i < width<R>; i++) r.v[i] = name(x.v[i]); \
    return r; \
  }
#define HOST_MAP2(name) \
  template <class V, class R = typename V::value> HOST_FN R name(V x, typename V::value y) { \
    R r(x); \
    for (int i = 0; i < width<R>; i++) r.v[i] = name(r.v[i], y.v[i]); \
    return r; \
  }
#define HOST_MAP3(name) \
  template <class V, class R = typename V::value> \
  HOST_FN R name(V x, typename V::value y, typename V::value z) { \
    R r(x); \
    for (int i = 0; i < width<R>; i++) r.v[i] = name(r.v[i], y.v[i], z.v[i]); \
    return r; \
  }
#if HOST_LINT
#define HOST_RESULT(formula) 0
#else
#define HOST_RESULT(formula) formula
#endif
#define HOST_MATH1(name, formula) \
  HOST_FN float name(float x) { return HOST_RESULT(formula); } \
  HOST_FN half name(half x) { return half(name(float(x))); } \
  HOST_FN bfloat name(bfloat x) { return bfloat(name(float(x))); } \
  HOST_MAP1(name, value)
#define HOST_MATH2(name, formula) \
  HOST_FN float name(float x, float y) { return HOST_RESULT(formula); } \
  HOST_FN half name(half x, half y) { return half(name(float(x), float(y))); } \
  HOST_FN bfloat name(bfloat x, bfloat y) { return bfloat(name(float(x), float(y))); } \
  HOST_MAP2(name)
#define HOST_MATH3(name, formula) \
  HOST_FN float name(float x, float y, float z) { return HOST_RESULT(formula); } \
  HOST_FN half name(half x, half y, half z) { return half(name(float(x), float(y), float(z))); } \
  HOST_FN bfloat name(bfloat x, bfloat y, bfloat z) { \
    return bfloat(name(float(x), float(y), float(z))); \
  } \
  HOST_MAP3(name)
#define HOST_TEST(name, formula) \
  HOST_FN bool name(float x) { return HOST_RESULT(formula); } \
  HOST_FN bool name(half x) { return name(float(x)); } \
  HOST_FN bool name(bfloat x) { return name(float(x)); } \
  HOST_MAP1(name, truth)

#define HOST_TRANSCENDENTALS \
  HOST_MATH1(exp, __builtin_expf(x)) \
  HOST_MATH1(exp2, __builtin_exp2f(x)) \
  HOST_MATH1(log, __builtin_logf(x)) \
  HOST_MATH1(log2, __builtin_log2f(x)) \
  HOST_MATH1(sin, __builtin_sinf(x)) \
  HOST_MATH1(cos, __builtin_cosf(x)) \
  HOST_MATH1(tanh, __builtin_tanhf(x)) \
  HOST_MATH1(sqrt, __builtin_sqrtf(x)) \
  HOST_MATH1(rsqrt, 1.0f / __builtin_sqrtf(x)) \
  HOST_MATH2(pow, __builtin_powf(x, y)) \
  HOST_MATH2(divide, x / y)
HOST_TRANSCENDENTALS
namespace precise { HOST_TRANSCENDENTALS }
namespace fast { HOST_TRANSCENDENTALS }
HOST_MATH1(fabs, __builtin_fabsf(x))
HOST_MATH1(floor, __builtin_floorf(x))
HOST_MATH1(ceil, __builtin_ceilf(x))
HOST_MATH1(trunc, __builtin_truncf(x))
HOST_MATH1(rint, __builtin_rintf(x))
HOST_MATH1(round, __builtin_roundf(x))
HOST_MATH2(fmin, __builtin_fminf(x, y))
HOST_MATH2(fmax, __builtin_fmaxf(x, y))
HOST_MATH2(copysign, __builtin_copysignf(x, y))
HOST_MATH3(fma, __builtin_fmaf(x, y, z))
HOST_MATH3(mix, x + (y - x) * z)
HOST_TEST(isnan, x != x)
HOST_TEST(isinf, __builtin_isinf(x))
HOST_TEST(isfinite, __builtin_isfinite(x))
HOST_TEST(signbit, as_type<int>(x) < 0)

// one function a type: max(x, 0) of a float x is ambiguous, as in Metal; NaN loses
#define HOST_MIN_MAX(T) \
  HOST_FN T min(T a, T b) { return a != a || b < a ? b : a; } \
  HOST_FN T max(T a, T b) { return a != a || a < b ? b : a; } \
  HOST_FN T clamp(T x, T low, T high) { return min(max(x, low), high); }
HOST_INTEGERS(HOST_MIN_MAX)
HOST_FLOATS(HOST_MIN_MAX)
HOST_MAP2(min)
HOST_MAP2(max)
HOST_MAP3(clamp)
#define HOST_ABS(T) \
  HOST_FN T abs(T x) { return x < T(0) ? T(-x) : x; }
HOST_ABS(short)
HOST_ABS(int)
HOST_ABS(long)
HOST_FN float abs(float x) { return fabs(x); }
HOST_FN half abs(half x) { return fabs(x); }
HOST_FN bfloat abs(bfloat x) { return fabs(x); }
HOST_MAP1(abs, value)

template <class T, class = if_scalar<T>> HOST_FN T select(T no, T yes, bool which) {
  return which ? yes : no;
}
template <class V, class R = typename V::value>
HOST_FN R select(V no, typename V::value yes, typename R::truth which) {
  R r(no);
  for (int i = 0; i < width<R>; i++) r.v[i] = which.v[i] ? yes.v[i] : r.v[i];
  return r;
}
template <class V, class R = typename V::value> HOST_FN auto dot(V from, typename V::value b) {
  R a(from);
  auto sum = a.v[0] * b.v[0];
  for (int i = 1; i < width<R>; i++) sum += a.v[i] * b.v[i];
  return sum;
}
template <int N> HOST_FN bool any(vec<bool, N> x) {
  for (int i = 0; i < N; i++)
    if (x.v[i]) return true;
  return false;
}
template <int N> HOST_FN bool all(vec<bool, N> x) { return !any(!x); }
HOST_FN uint popcount(uint x) { return __builtin_popcount(x); }
HOST_FN uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
HOST_FN uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
HOST_FN uint extract_bits(uint x, uint offset, uint bits) {
  return bits >= 32 ? x >> offset : (x >> offset) & ((1u << bits) - 1);
}
}  // namespace metal
