// The squashing functions and their derivatives on ATen's vectors, one or four at a time; for native.cpp.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#define INLINE inline __attribute__((always_inline))

namespace {

// --------------------------------------------------------------------------------------------------- vectors, by four

// Four vectors in step. f is a chain of some fifteen dependent operations of four cycles each; four chains side by side
// keep the multipliers busy where one leaves them waiting.
template <class T> struct Four {
  using V = at::vec::Vectorized<T>;
  using value_type = T;
  V v[4];

  Four() = default;
  INLINE Four(V a) : v{a, a, a, a} {}
  template <class N, class = std::enable_if_t<std::is_arithmetic_v<N>>> INLINE Four(N n) : Four(V(static_cast<T>(n))) {}

  static constexpr int64_t size() { return 4 * V::size(); }
  static INLINE Four loadu(const T* p) { return map([&](int k) { return V::loadu(p + k * V::size()); }); }
  INLINE void store(T* p) const {
    for (int k = 0; k < 4; ++k) v[k].store(p + k * V::size());
  }
  template <class Make> static INLINE Four map(Make make) {
    Four r;
    for (int k = 0; k < 4; ++k) r.v[k] = make(k);
    return r;
  }
  friend INLINE Four operator+(const Four& a, const Four& b) { return map([&](int k) { return a.v[k] + b.v[k]; }); }
  friend INLINE Four operator-(const Four& a, const Four& b) { return map([&](int k) { return a.v[k] - b.v[k]; }); }
  friend INLINE Four operator*(const Four& a, const Four& b) { return map([&](int k) { return a.v[k] * b.v[k]; }); }
  friend INLINE Four operator/(const Four& a, const Four& b) { return map([&](int k) { return a.v[k] / b.v[k]; }); }
};

template <class T> INLINE at::vec::Vectorized<T> total(const Four<T>& a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
template <class T> INLINE at::vec::Vectorized<T> total(const at::vec::Vectorized<T>& a) { return a; }

template <class T, class Op> INLINE Four<T> each(const Four<T>& a, Op op) {
  return Four<T>::map([&](int k) { return op(a.v[k]); });
}
template <class T, class Op> INLINE at::vec::Vectorized<T> each(const at::vec::Vectorized<T>& a, Op op) { return op(a); }

template <class T> INLINE Four<T> fmadd(const Four<T>& a, const Four<T>& b, const Four<T>& c) {
  return Four<T>::map([&](int k) { return at::vec::fmadd(a.v[k], b.v[k], c.v[k]); });
}
template <class W> INLINE W clamped(const W& z, typename W::value_type limit) {
  using V = at::vec::Vectorized<typename W::value_type>;
  return each(z, [&](V v) { return at::vec::clamp(v, V(-limit), V(limit)); });  // NaN stays
}

// ---------------------------------------------------------------------------------------------- f and its derivative
// Rational approximations z * P(z^2) / Q(z^2), relative error 2e-8 before rounding and 4e-7 after; coefficients by
// scripts/fit_squash.py. Beyond the limit f is +-1, tanh exactly. NaN passes through the clamps.

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
INLINE Four<float> reciprocal(const Four<float>& q) {
  return each(q, [](auto v) { return reciprocal(v); });
}

template <class W> INLINE W tanh_of(const W& z) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    return each(z, [](auto v) { return v.tanh(); });
  } else {
    const W c = clamped(z, 9), u = c * c;
    const W p = polynomial(u, 1.33830665e-08, 2.06254671e-05, 0.00349649321, 0.133817681, 0.99999998);
    const W q = polynomial(u, 7.786731e-07, 0.000328716919, 0.0258803612, 0.467150838, 1);
    return clamped(c * p * reciprocal(q), 1);
  }
}

template <class W> INLINE W erf_of(const W& z) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    return each(z, [](auto v) { return v.erf(); });
  } else {
    const W c = clamped(z, 4), u = c * c;
    const W p = polynomial(u, 1.98675471e-06, 0.000284562681, 0.0038833126, 0.0531016482, 0.19354471, 1.12837914);
    const W q = polynomial(u, 3.74197134e-05, 0.00118555863, 0.0152071929, 0.115349808, 0.50485709, 1);
    return clamped(c * p * reciprocal(q), 1);
  }
}

// f(z), and f'(z) from z and t = f(z); W is one vector or four.
struct Tanh {
  template <class W> static INLINE W f(const W& z) { return tanh_of(z); }
  template <class W> static INLINE W df(const W&, const W& t) { return W(1) - t * t; }
};
struct HardTanh {  // at +-1 itself the derivative is 1, as in torch
  template <class W> static INLINE W f(const W& z) { return clamped(z, 1); }
  template <class W> static INLINE W df(const W& z, const W&) {
    return each(z, [](auto v) { return decltype(v)::blendv(decltype(v)(0), decltype(v)(1), v.abs() <= decltype(v)(1)); });
  }
};
struct Sigmoid {  // by tanh: exp of a large number would overflow
  template <class W> static INLINE W f(const W& z) { return W(0.5) + W(0.5) * tanh_of(W(0.5) * z); }
  template <class W> static INLINE W df(const W&, const W& t) { return t * (W(1) - t); }
};
struct Erf {
  template <class W> static INLINE W f(const W& z) { return erf_of(z); }
  template <class W> static INLINE W df(const W& z, const W&) {
    return W(1.12837916709551257) * each(z * z, [](auto v) { return v.neg().exp(); });
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

// f and f' together, for backward. 1 - t^2 loses all digits where t is near 1, and large x would multiply what is left
// into alpha's gradient: tanh and its slope come from E = exp(-2 z) there, t = (1 - E) / (1 + E), f' = 4 E / (1 + E)^2.
template <class W> INLINE void tanh_and_slope(const W& z, W& t, W& d) {
  if constexpr (std::is_same_v<typename W::value_type, double>) {
    t = tanh_of(z);
    d = W(1) - t * t;
  } else {
    const W c = clamped(z, 40);  // exp(80) is finite
    const W e = each(W(-2) * c, [](auto v) { return v.exp_u20(); }) + (c - c);  // + 0, or NaN where z is
    const W r = reciprocal(W(1) + e);
    t = (W(1) - e) * r;
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
