// The squashing functions and their derivatives on ATen's vectors, one or several at a time; for native.cpp.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#define INLINE inline __attribute__((always_inline))

namespace {

// ------------------------------------------------------------------------------------------------- vectors, by the pack

// N vectors in step. f is a chain of some fifteen dependent operations of four cycles each; several chains side by side
// keep the multipliers busy where one leaves them waiting.
template <class T, int N> struct Pack {
  using V = at::vec::Vectorized<T>;
  using value_type = T;
  V v[N];

  Pack() = default;
  INLINE Pack(V a) {
    for (int k = 0; k < N; ++k) v[k] = a;
  }
  template <class X, class = std::enable_if_t<std::is_arithmetic_v<X>>> INLINE Pack(X x) : Pack(V(static_cast<T>(x))) {}

  static constexpr int64_t size() { return N * V::size(); }
  static INLINE Pack loadu(const T* p) { return map([&](int k) { return V::loadu(p + k * V::size()); }); }
  INLINE void store(T* p) const {
    for (int k = 0; k < N; ++k) v[k].store(p + k * V::size());
  }
  template <class Make> static INLINE Pack map(Make make) {
    Pack r;
    for (int k = 0; k < N; ++k) r.v[k] = make(k);
    return r;
  }
  friend INLINE Pack operator+(const Pack& a, const Pack& b) { return map([&](int k) { return a.v[k] + b.v[k]; }); }
  friend INLINE Pack operator-(const Pack& a, const Pack& b) { return map([&](int k) { return a.v[k] - b.v[k]; }); }
  friend INLINE Pack operator*(const Pack& a, const Pack& b) { return map([&](int k) { return a.v[k] * b.v[k]; }); }
  friend INLINE Pack operator/(const Pack& a, const Pack& b) { return map([&](int k) { return a.v[k] / b.v[k]; }); }
};

template <class T, int N> INLINE at::vec::Vectorized<T> total(const Pack<T, N>& a) {
  auto sum = a.v[0];
  for (int k = 1; k < N; ++k) sum = sum + a.v[k];
  return sum;
}
template <class T> INLINE at::vec::Vectorized<T> total(const at::vec::Vectorized<T>& a) { return a; }

template <class T, int N, class Op> INLINE Pack<T, N> each(const Pack<T, N>& a, Op op) {
  return Pack<T, N>::map([&](int k) { return op(a.v[k]); });
}
template <class T, class Op> INLINE at::vec::Vectorized<T> each(const at::vec::Vectorized<T>& a, Op op) { return op(a); }
template <class T, int N, class Op> INLINE Pack<T, N> both(const Pack<T, N>& a, const Pack<T, N>& b, Op op) {
  return Pack<T, N>::map([&](int k) { return op(a.v[k], b.v[k]); });
}
template <class T, class Op>
INLINE at::vec::Vectorized<T> both(const at::vec::Vectorized<T>& a, const at::vec::Vectorized<T>& b, Op op) {
  return op(a, b);
}

template <class T, int N> INLINE Pack<T, N> fmadd(const Pack<T, N>& a, const Pack<T, N>& b, const Pack<T, N>& c) {
  return Pack<T, N>::map([&](int k) { return at::vec::fmadd(a.v[k], b.v[k], c.v[k]); });
}
// NaN passes through both.
template <class W> INLINE W clamped(const W& z, typename W::value_type limit) {
  using V = at::vec::Vectorized<typename W::value_type>;
  return each(z, [&](V v) { return at::vec::clamp(v, V(-limit), V(limit)); });
}
template <class W> INLINE W at_most(const W& z, typename W::value_type limit) {
  using V = at::vec::Vectorized<typename W::value_type>;
  return each(z, [&](V v) { return at::vec::clamp_max(v, V(limit)); });
}

// ---------------------------------------------------------------------------------------------- f and its derivative
// Rational approximations z * P(z^2) / Q(z^2), relative error 2e-8 before rounding and 4e-7 after; coefficients by
// scripts/maintain/fit_squash.py. Beyond the limit (9, and 4) the quotient stays, z grows, and the clamp makes +-1 of it. NaN
// passes through.

// Horner's scheme, coefficients highest first.
template <class W> INLINE W horner(const W&, const W& sum) { return sum; }
template <class W, class... C> INLINE W horner(const W& u, const W& sum, double next, C... rest) {
  return horner(u, fmadd(sum, u, W(static_cast<typename W::value_type>(next))), rest...);
}
template <class W, class... C> INLINE W polynomial(const W& u, double highest, C... rest) {
  return horner(u, W(static_cast<typename W::value_type>(highest)), rest...);
}

// 1 / q. A division would be most of the work of tanh: one guess of 12 or 14 bits and one Newton step instead.
INLINE at::vec::Vectorized<float> reciprocal(at::vec::Vectorized<float> q) {
  using V = at::vec::Vectorized<float>;
#if defined(CPU_CAPABILITY_AVX512)
  const V guess(_mm512_rcp14_ps(q));
  return guess * (V(2.f) - q * guess);
#elif defined(CPU_CAPABILITY_AVX2)
  const V guess(_mm256_rcp_ps(q));
  return guess * (V(2.f) - q * guess);
#else
  return V(1.f) / q;
#endif
}
template <int N> INLINE Pack<float, N> reciprocal(const Pack<float, N>& q) {
  return each(q, [](auto v) { return reciprocal(v); });
}

template <class W> INLINE W tanh_of(const W& z) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    return each(z, [](auto v) { return v.tanh(); });
  } else {
    const W u = at_most(z * z, 81);
    const W p = polynomial(u, 1.33830665e-08, 2.06254671e-05, 0.00349649321, 0.133817681, 0.99999998);
    const W q = polynomial(u, 7.786731e-07, 0.000328716919, 0.0258803612, 0.467150838, 1);
    return clamped(z * p * reciprocal(q), 1);
  }
}

template <class W> INLINE W erf_of(const W& z) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    return each(z, [](auto v) { return v.erf(); });
  } else {
    const W u = at_most(z * z, 16);
    const W p = polynomial(u, 1.98675471e-06, 0.000284562681, 0.0038833126, 0.0531016482, 0.19354471, 1.12837914);
    const W q = polynomial(u, 3.74197134e-05, 0.00118555863, 0.0152071929, 0.115349808, 0.50485709, 1);
    return clamped(z * p * reciprocal(q), 1);
  }
}

// 2^n for whole n <= 0, and 0 where exp(-FAR) would be below the normal numbers.
#if defined(CPU_CAPABILITY_AVX2)
constexpr float FAR = 88.3f;  // n = -127, whose exponent field is that of 0
#else
constexpr float FAR = 110.f;
#endif
INLINE at::vec::Vectorized<float> power_of_two(at::vec::Vectorized<float> n) {
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_scalef_ps(_mm512_set1_ps(1.f), n);
#elif defined(CPU_CAPABILITY_AVX2)
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
#else
  return n.exp2();
#endif
}

// exp(-a) for a >= 0 as s * (1 + q), s a power of two and |q| below 0.42: exp(-a) - 1 keeps its digits as
// s * q + (s - 1). NaN passes through. Coefficients of q = 2^f - 1, f in [-0.5, 0.5], by scripts/maintain/fit_squash.py, relative error 5e-7.
template <class W> INLINE void exp_of_minus(const W& any, W& s, W& q) {
  const W a = at_most(any, FAR), rate(-1.44269504f);  // -log2(e)
  const W n = each(a * rate, [](auto v) { return v.round(); });
  const W f = fmadd(a, rate, W(0) - n);
  q = f * polynomial(f, 0.00133335382, 0.00966624542, 0.0555050021, 0.240223513, 0.693147144);
  s = each(n, [](auto v) { return power_of_two(v); });
}

// f(z), and f'(z) from z and t = f(z); W is one vector or a pack.
struct Tanh {
  template <class W> static INLINE W f(const W& z) { return tanh_of(z); }
  template <class W> static INLINE W df(const W&, const W& t) { return W(1) - t * t; }
};
struct HardTanh {  // at +-1 itself the derivative is 0, as in torch.nn.functional.hardtanh
  template <class W> static INLINE W f(const W& z) { return clamped(z, 1); }
  template <class W> static INLINE W df(const W& z, const W&) {
    return each(z, [](auto v) { return decltype(v)::blendv(decltype(v)(1), decltype(v)(0), v.abs() >= decltype(v)(1)); });
  }
};
struct Sigmoid {  // by tanh: exp of a large number would overflow
  template <class W> static INLINE W f(const W& z) { return W(0.5) + W(0.5) * tanh_of(W(0.5) * z); }
  template <class W> static INLINE W df(const W&, const W& t) { return t * (W(1) - t); }
};
struct Erf {
  template <class W> static INLINE W f(const W& z) { return erf_of(z); }
  template <class W> static INLINE W df(const W& z, const W&) {
    const W norm(1.12837916709551257);  // 2 / sqrt(pi)
    if constexpr (std::is_same_v<typename W::value_type, double>) {
      return norm * each(z * z, [](auto v) { return v.neg().exp(); });
    } else {
      W s, q;
      exp_of_minus(z * z, s, q);
      return norm * fmadd(s, q, s);
    }
  }
};
struct Isru {
  template <class W> static INLINE W root(const W& z) {
    return each(W(1) + z * z, [](auto v) { return v.sqrt(); });
  }
  template <class W> static INLINE W f(const W& z) { return z / root(z); }
  template <class W> static INLINE W df(const W& z, const W&) {
    const W r = W(1) / root(z);
    return r * r * r;
  }
};
struct Identity {
  template <class W> static INLINE W f(const W& z) { return z; }
  template <class W> static INLINE W df(const W&, const W&) { return W(1); }
};

// tanh and its slope, for backward. 1 - t^2 loses all digits where t is near 1, and large x would multiply what is left
// into alpha's gradient. So both come from E = exp(-2 |z|): t = (1 - E) / (1 + E), f' = 4 E / (1 + E)^2.
template <class W> INLINE void tanh_and_slope(const W& z, W& t, W& d) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    t = tanh_of(z);
    d = W(1) - t * t;
  } else {
    W s, q;
    exp_of_minus(each(W(2) * z, [](auto v) { return v.abs(); }), s, q);
    const W e = fmadd(s, q, s), less = fmadd(s, q, s - W(1));  // E, and E - 1
    const W r = reciprocal(W(1) + e);
    const W size = W(0) - less * r;
    t = both(size, z, [](auto v, auto sign) { return v | (sign & decltype(v)(-0.f)); });
    d = W(4) * (e * r) * r;
  }
}

template <class F, class W> INLINE void value_and_slope(const W& z, W& t, W& d) {
  if constexpr (std::is_same_v<F, Tanh>) {
    tanh_and_slope(z, t, d);
  } else if constexpr (std::is_same_v<F, Sigmoid>) {
    tanh_and_slope(W(0.5) * z, t, d);
    t = W(0.5) + W(0.5) * t;
    d = W(0.25) * d;
  } else {
    t = F::f(z);
    d = F::df(z, t);
  }
}

}  // namespace
