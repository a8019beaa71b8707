// Metal's types: scalars with half and bfloat, vectors, and the traits that tell them apart.
#pragma once

#ifdef __OPENCL_CPP_VERSION__
#define HOST_LINT 1
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define HOST_CONSTANT constexpr __constant
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef __SIZE_TYPE__ size_t;
#else
#define HOST_LINT 0
#define HOST_CONSTANT inline constexpr
#include <stddef.h>
#include <stdint.h>
#endif

// always inlined, so that a traced access is charged to the kernel's line
#define HOST_FN inline __attribute__((always_inline))

namespace metal {
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
#if HOST_LINT
typedef __bf16 bfloat;
#else
typedef _Float16 half;
struct bfloat;
#endif

// ---- traits
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;
template <class A, class B> HOST_CONSTANT bool is_same_v = false;
template <class A> HOST_CONSTANT bool is_same_v<A, A> = true;

template <class T> HOST_CONSTANT bool is_integral_v = false;
#define HOST_INTEGERS(X) X(char) X(uchar) X(short) X(ushort) X(int) X(uint) X(long) X(ulong)
#define HOST_FLOATS(X) X(float) X(half) X(bfloat)
#define HOST_INTEGRAL(T) template <> HOST_CONSTANT bool is_integral_v<T> = true;
HOST_INTEGRAL(bool)
HOST_INTEGRAL(signed char)
HOST_INTEGERS(HOST_INTEGRAL)

template <class T> HOST_CONSTANT bool is_floating_point_v = false;
#define HOST_FLOATING(T) template <> HOST_CONSTANT bool is_floating_point_v<T> = true;
HOST_FLOATS(HOST_FLOATING)

// components of a scalar, vector or swizzle; 0 of anything else
template <class T> HOST_CONSTANT int width = is_integral_v<T> || is_floating_point_v<T> ? 1 : 0;
template <class T> using if_scalar = enable_if_t<width<T> == 1>;

// ---- as_type
template <class To, class From> HOST_FN To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: types of different sizes");
  To to;
#if !HOST_LINT
  __builtin_memcpy((void*)&to, &from, sizeof to);
#endif
  return to;
}

#if !HOST_LINT
// ---- bfloat: from integers by itself, from other floats only when asked
struct bfloat {
  uint16_t bits;
  bfloat() = default;
  HOST_FN explicit constexpr bfloat(float x) : bits(rounded(x)) {}
  HOST_FN explicit constexpr bfloat(half x) : bits(rounded(float(x))) {}
  template <class I, class = enable_if_t<is_integral_v<I>>>
  HOST_FN constexpr bfloat(I x) : bits(rounded(float(x))) {}
  HOST_FN operator float() const { return as_type<float>(uint32_t(bits) << 16); }
  HOST_FN static constexpr uint16_t rounded(float x) {
    uint32_t u = __builtin_bit_cast(uint32_t, x);
    bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    return nan ? (u >> 16) | 0x40 : (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  }
};

#define HOST_BFLOAT_OP(op) \
  HOST_FN bfloat operator op(bfloat a, bfloat b) { return bfloat(float(a) op float(b)); } \
  HOST_FN bfloat& operator op##=(bfloat& a, bfloat b) { return a = a op b; } \
  template <class I, class = enable_if_t<is_integral_v<I>>> \
  HOST_FN bfloat operator op(bfloat a, I b) { return a op bfloat(b); } \
  template <class I, class = enable_if_t<is_integral_v<I>>> \
  HOST_FN bfloat operator op(I a, bfloat b) { return bfloat(a) op b; }
HOST_BFLOAT_OP(+)
HOST_BFLOAT_OP(-)
HOST_BFLOAT_OP(*)
HOST_BFLOAT_OP(/)
HOST_FN bfloat operator-(bfloat a) { return bfloat(-float(a)); }
#endif

// ---- numeric_limits
template <class T> struct numeric_limits;
#define HOST_LIMITS(T, LOW, HIGH) \
  template <> struct numeric_limits<T> { \
    HOST_FN static constexpr T lowest() { return T(LOW); } \
    HOST_FN static constexpr T min() { return T(LOW); } \
    HOST_FN static constexpr T max() { return T(HIGH); } \
  };
HOST_LIMITS(uchar, 0, 255)
HOST_LIMITS(short, -32768, 32767)
HOST_LIMITS(ushort, 0, 65535)
HOST_LIMITS(int, -2147483647 - 1, 2147483647)
HOST_LIMITS(uint, 0, 4294967295u)
#define HOST_FLOAT_LIMITS(T, MIN, MAX, EPSILON) \
  template <> struct numeric_limits<T> { \
    HOST_FN static constexpr T min() { return T(MIN); } \
    HOST_FN static constexpr T max() { return T(MAX); } \
    HOST_FN static constexpr T lowest() { return T(-MAX); } \
    HOST_FN static constexpr T epsilon() { return T(EPSILON); } \
    HOST_FN static constexpr T infinity() { return T(__builtin_inff()); } \
    HOST_FN static constexpr T quiet_NaN() { return T(__builtin_nanf("")); } \
  };
HOST_FLOAT_LIMITS(float, 1.17549435e-38f, 3.402823466e38f, 1.1920928955078125e-7f)
HOST_FLOAT_LIMITS(half, 6.103515625e-5f, 65504.0f, 9.765625e-4f)
HOST_FLOAT_LIMITS(bfloat, 1.17549435e-38f, 3.3895313892515355e38f, 0.0078125f)

// ---- vectors
template <class T, int N> struct vec;

// some components of a vector V of T with room for N: what v.xy is
template <class T, int N, int... I> struct swizzle {
  typedef vec<T, sizeof...(I)> value;
  T v[N];
  swizzle() = default;
  HOST_FN swizzle& operator=(value from) {
    int k = 0;
    ((v[I] = from.v[k++]), ...);
    return *this;
  }
  HOST_FN swizzle& operator=(const swizzle& from) { return *this = value(from); }
  HOST_FN operator value() const { return value(v[I]...); }
  HOST_FN T operator[](int k) const { return value(*this).v[k]; }
  HOST_FN swizzle& operator+=(value x) { return *this = value(*this) + x; }
  HOST_FN swizzle& operator-=(value x) { return *this = value(*this) - x; }
  HOST_FN swizzle& operator*=(value x) { return *this = value(*this) * x; }
#if HOST_LINT
  swizzle(const swizzle&) = default;
  swizzle(const __constant swizzle&) {}
  operator value() const __constant { return value(); }
#endif
};
template <class T, int N> HOST_CONSTANT int width<vec<T, N>> = N;
template <class T, int N, int... I> HOST_CONSTANT int width<swizzle<T, N, I...>> = sizeof...(I);

template <class T, int N> struct components;
template <class T> struct alignas(2 * sizeof(T)) components<T, 2> {
  union {
    T v[2];
    struct { T x, y; };
    struct { T r, g; };
    swizzle<T, 2, 0, 1> xy;
    swizzle<T, 2, 1, 0> yx;
  };
};
template <class T> struct alignas(4 * sizeof(T)) components<T, 3> {
  union {
    T v[4];
    struct { T x, y, z; };
    struct { T r, g, b; };
    swizzle<T, 4, 0, 1> xy;
    swizzle<T, 4, 1, 2> yz;
    swizzle<T, 4, 0, 1, 2> xyz;
  };
};
template <class T> struct alignas(4 * sizeof(T)) components<T, 4> {
  union {
    T v[4];
    struct { T x, y, z, w; };
    struct { T r, g, b, a; };
    swizzle<T, 4, 0, 1> xy;
    swizzle<T, 4, 1, 2> yz;
    swizzle<T, 4, 2, 3> zw;
    swizzle<T, 4, 0, 2> xz;
    swizzle<T, 4, 1, 3> yw;
    swizzle<T, 4, 0, 1, 2> xyz;
    swizzle<T, 4, 1, 2, 3> yzw;
    swizzle<T, 4, 3, 2, 1, 0> wzyx;
  };
};

#define HOST_VEC_OP(op) \
  HOST_FN friend vec operator op(vec a, vec b) { \
    vec r; \
    for (int i = 0; i < N; i++) r.v[i] = T(a.v[i] op b.v[i]); \
    return r; \
  } \
  HOST_FN vec& operator op##=(vec b) { return *this = *this op b; }
#define HOST_VEC_COMPARISON(op) \
  HOST_FN friend vec<bool, N> operator op(vec a, vec b) { \
    vec<bool, N> r; \
    for (int i = 0; i < N; i++) r.v[i] = a.v[i] op b.v[i]; \
    return r; \
  }
#define HOST_VEC_UNARY(op, R) \
  HOST_FN friend vec<R, N> operator op(vec a) { \
    vec<R, N> r; \
    for (int i = 0; i < N; i++) r.v[i] = R(op a.v[i]); \
    return r; \
  }

template <class T, int N> struct vec : components<T, N> {
  typedef vec value;
  typedef vec<bool, N> truth;
  using components<T, N>::v;
  vec() = default;
  template <class U, class = if_scalar<U>> HOST_FN vec(U s) {
    for (int i = 0; i < N; i++) v[i] = T(s);
  }
  template <class U> HOST_FN explicit vec(vec<U, N> from) {
    for (int i = 0; i < N; i++) v[i] = T(from.v[i]);
  }
  template <class S, class V = typename S::value,
            class = enable_if_t<width<S> == N && !is_same_v<V, vec>>>
  HOST_FN explicit vec(S from) : vec(V(from)) {}
  template <class A, class B, class... R,
            class = enable_if_t<((width<A> + width<B>) + ... + width<R>) == N>>
  HOST_FN vec(A a, B b, R... rest) {
    int i = 0;
    put(i, a);
    put(i, b);
    (put(i, rest), ...);
  }
  template <class U> HOST_FN void put(int& i, U part) {
    if constexpr (width<U> == 1)
      v[i++] = T(part);
    else
      for (int k = 0; k < width<U>; k++) v[i++] = T(part[k]);
  }
#if HOST_LINT
  vec(const vec&) = default;
  vec(const __constant vec&) {}
  vec& operator=(vec) { return *this; }
  T operator[](int i) const __constant { return v[i]; }
#else
  vec(const vec&) = default;
  HOST_FN vec& operator=(const vec& from) {
    __builtin_memcpy((void*)this, &from, sizeof from);  // whole: a swizzle forbids the default
    return *this;
  }
#endif
  HOST_FN T& operator[](int i) { return v[i]; }
  HOST_FN const T& operator[](int i) const { return v[i]; }
  HOST_VEC_OP(+)
  HOST_VEC_OP(-)
  HOST_VEC_OP(*)
  HOST_VEC_OP(/)
  HOST_VEC_OP(%)
  HOST_VEC_OP(&)
  HOST_VEC_OP(|)
  HOST_VEC_OP(^)
  HOST_VEC_OP(<<)
  HOST_VEC_OP(>>)
  HOST_VEC_COMPARISON(==)
  HOST_VEC_COMPARISON(!=)
  HOST_VEC_COMPARISON(<)
  HOST_VEC_COMPARISON(>)
  HOST_VEC_COMPARISON(<=)
  HOST_VEC_COMPARISON(>=)
  HOST_VEC_COMPARISON(&&)
  HOST_VEC_COMPARISON(||)
  HOST_VEC_UNARY(-, T)
  HOST_VEC_UNARY(~, T)
  HOST_VEC_UNARY(!, bool)
};

#define HOST_VEC_NAMES(T) \
  typedef vec<T, 2> T##2; \
  typedef vec<T, 3> T##3; \
  typedef vec<T, 4> T##4;
HOST_VEC_NAMES(bool)
HOST_INTEGERS(HOST_VEC_NAMES)
HOST_FLOATS(HOST_VEC_NAMES)
}  // namespace metal
