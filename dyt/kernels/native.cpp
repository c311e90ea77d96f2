// Fused DyT on the CPU: y = weight * f(alpha * x + shift) + bias, forward and backward in one pass each over the data.
//
// Only x is saved for backward; f is computed again there. Work is in float (double for double), whatever x holds.
// Vectors are ATen's, for the instruction set that dyt/kernels/native.py compiles for. All is viewed as (rows, cols):
// channels last, cols are channels and parameters vary along a row ("wide"); channels first, a row is one channel of one
// sample and parameters are constant along it ("tall").
// The same input gives the same bits at the same thread count: rows are shared out by position, sums added in order.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "squash.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

template <class Run> void with_squash(int64_t squash, Run run) {
  switch (squash) {
    case 0: return run(Tanh{});
    case 1: return run(HardTanh{});
    case 2: return run(Sigmoid{});
    case 3: return run(Erf{});
    case 4: return run(Isru{});
    case 5: return run(Identity{});
    default: TORCH_CHECK(false, "dyt: squash must be 0 to 5, got ", squash);
  }
}

// ------------------------------------------------------------------------------------------------- rows of any dtype

// A row as float or double: in place where it is that already, else converted into a buffer.
template <class S, class T> const T* read_row(const S* row, int64_t n, std::vector<T>& buffer) {
  if constexpr (std::is_same_v<S, T>) {
    return row;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<T>(row[i]);
    return buffer.data();
  }
}
template <class S, class T> T* row_to_write(S* row, std::vector<T>& buffer) {
  if constexpr (std::is_same_v<S, T>) return row;
  else return buffer.data();
}
template <class S, class T> void write_row(S* row, const T* from, int64_t n) {
  if constexpr (!std::is_same_v<S, T>)
    for (int64_t i = 0; i < n; ++i) row[i] = static_cast<S>(from[i]);
}

// A parameter as `size` values: the tensor's own memory where dtype and size fit, else a copy.
template <class T> struct Values {
  Tensor owner;
  std::vector<T> copy;
  const T* data = nullptr;

  Values(const OptTensor& p, T missing, int64_t size) {
    if (!p.has_value() || !p->defined()) {
      copy.assign(size, missing);
      data = copy.data();
      return;
    }
    constexpr auto type = at::CppTypeToScalarType<T>::value;
    owner = p->scalar_type() == type && p->is_contiguous() ? *p : p->detach().to(type).contiguous();
    data = owner.const_data_ptr<T>();
    if (owner.numel() == size) return;
    TORCH_CHECK(owner.numel() == 1, "dyt: a parameter has ", owner.numel(), " values for ", size, " channels");
    copy.assign(size, data[0]);
    data = copy.data();
  }
};

bool given(const OptTensor& p) { return p.has_value() && p->defined(); }

// The shape of the work, and its parameters; alpha is one number unless alpha_each or channels come first.
template <class T> struct Work {
  bool wide, alpha_each;
  int64_t channels, cols, rows;
  Values<T> alpha, weight, bias, shift;

  Work(const Tensor& x, const OptTensor& a, const OptTensor& w, const OptTensor& b, const OptTensor& s, bool last)
      : wide(last),
        alpha_each(given(a) && a->numel() > 1),
        channels(last ? x.size(-1) : x.size(1)),
        cols(last ? channels : (x.numel() ? x.numel() / (x.size(0) * channels) : 0)),
        rows(cols ? x.numel() / cols : 0),
        alpha(a, T(1), alpha_each || !last ? channels : 1),
        weight(w, T(1), channels),
        bias(b, T(0), channels),
        shift(s, T(0), 1) {}
};

// An output like x. Large ones come fresh from the system, and filling their pages one by one costs more than the work
// itself; Linux is asked for large pages, which it gives only where asked.
Tensor output_like(const Tensor& x) {
  Tensor y = at::empty_like(x);
#ifdef __linux__
  constexpr uintptr_t page = 4096;
  if (y.nbytes() >= (4u << 20)) {
    const auto start = (reinterpret_cast<uintptr_t>(y.data_ptr()) + page - 1) / page * page;
    const auto end = (reinterpret_cast<uintptr_t>(y.data_ptr()) + y.nbytes()) / page * page;
    madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // a hint: failing changes nothing
  }
#endif
  return y;
}

void check(const Tensor& x, bool channels_last) {
  TORCH_CHECK(x.dim() >= (channels_last ? 1 : 2), "dyt: x of shape ", x.sizes(), " has no channel axis");
}

int64_t rows_at_once(int64_t cols) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols)); }

// ----------------------------------------------------------------------------------------------------------- forward

// How a body reads and writes: four vectors, one, or the start of one, whose missing lanes read as zero.
template <class T> struct ByFour {
  using W = Four<T>;
  static INLINE W load(const T* p) { return W::loadu(p); }
  static INLINE void store(T* p, const W& v) { v.store(p); }
};
template <class T> struct ByOne {
  using W = at::vec::Vectorized<T>;
  int64_t count = W::size();
  INLINE W load(const T* p) const { return W::loadu(p, count); }
  INLINE void store(T* p, const W& v) const { v.store(p, static_cast<int>(count)); }
};

// Runs body(i, io) over the n values of a row.
template <class T, class Body> INLINE void along(int64_t n, Body body) {
  constexpr int64_t one = at::vec::Vectorized<T>::size();
  int64_t i = 0;
  for (; i + 4 * one <= n; i += 4 * one) body(i, ByFour<T>{});
  for (; i < n; i += one) body(i, ByOne<T>{std::min(one, n - i)});
}

template <class F, class S, class T> void forward_rows(const Work<T>& w, const S* x, S* y) {
  using V = at::vec::Vectorized<T>;
  at::parallel_for(0, w.rows, rows_at_once(w.cols), [&](int64_t from, int64_t to) {
    std::vector<T> in(std::is_same_v<S, T> ? 0 : w.cols), out(in.size());
    const T *alphas = w.alpha.data, *weight = w.weight.data, *bias = w.bias.data;
    const V shift(w.shift.data[0]);
    for (int64_t r = from; r < to; ++r) {
      const T* a = read_row<S, T>(x + r * w.cols, w.cols, in);
      T* b = row_to_write<S, T>(y + r * w.cols, out);
      const int64_t c = w.wide ? 0 : r % w.channels;
      const V alpha(alphas[c]), scale(weight[c]), add(bias[c]);
      if (w.wide && w.alpha_each) {
        along<T>(w.cols, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          const W t = F::f(fmadd(io.load(alphas + i), io.load(a + i), W(shift)));
          io.store(b + i, fmadd(t, io.load(weight + i), io.load(bias + i)));
        });
      } else if (w.wide) {
        along<T>(w.cols, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          const W t = F::f(fmadd(W(alpha), io.load(a + i), W(shift)));
          io.store(b + i, fmadd(t, io.load(weight + i), io.load(bias + i)));
        });
      } else {
        along<T>(w.cols, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          io.store(b + i, fmadd(F::f(fmadd(W(alpha), io.load(a + i), W(shift))), W(scale), W(add)));
        });
      }
      write_row<S, T>(y + r * w.cols, b, w.cols);
    }
  });
}

Tensor forward(const Tensor& x_in, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
               const OptTensor& shift, int64_t squash, bool channels_last) {
  check(x_in, channels_last);
  const Tensor x = x_in.contiguous();
  Tensor y = output_like(x);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "dyt_forward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const Work<T> w(x, alpha, weight, bias, shift, channels_last);
    with_squash(squash, [&](auto f) {
      forward_rows<decltype(f), scalar_t, T>(w, x.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>());
    });
  });
  return y;
}

// ---------------------------------------------------------------------------------------------------------- backward

// Sums of one thread. Rows go into float sums, which go into double ones every few rows: 1e-5 of the largest gradient
// must hold for any number of rows.
template <class T> struct Sums {
  std::vector<T> weight, bias, alpha;  // since the last flush, by channel
  std::vector<double> weights, biases, alphas;
  double shift = 0;

  Sums(int64_t channels, bool alpha_each)
      : weight(channels), bias(channels), alpha(alpha_each ? channels : 1), weights(channels), biases(channels),
        alphas(alpha_each ? channels : 1) {}

  static void move(std::vector<T>& from, std::vector<double>& to) {
    for (size_t i = 0; i < from.size(); ++i) {
      to[i] += from[i];
      from[i] = 0;
    }
  }
  void flush() {
    move(weight, weights);
    move(bias, biases);
    if (alpha.size() > 1) move(alpha, alphas);
  }
};

template <class T> T sum_of(at::vec::Vectorized<T> v) {
  return at::vec::vec_reduce_all<T>([](auto& a, auto& b) { return a + b; }, v);
}

template <class F, class S, class T>
void backward_rows(const Work<T>& w, const S* x, const S* g, S* dx, std::vector<Sums<T>>& all) {
  using V = at::vec::Vectorized<T>;
  const int64_t threads = static_cast<int64_t>(all.size());
  const int64_t share = (w.rows + threads - 1) / threads;
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    std::vector<T> in(std::is_same_v<S, T> ? 0 : w.cols), grad(in.size()), out(in.size());
    const T *alphas = w.alpha.data, *weight = w.weight.data;
    const V shift(w.shift.data[0]);
    for (int64_t k = first; k < last; ++k) {
      Sums<T>& s = all[k];
      T *sw = s.weight.data(), *sb = s.bias.data(), *sa = s.alpha.data();
      const int64_t from = k * share, to = std::min(w.rows, from + share);
      for (int64_t r = from; r < to; ++r) {
        const T* a = read_row<S, T>(x + r * w.cols, w.cols, in);
        const T* b = read_row<S, T>(g + r * w.cols, w.cols, grad);
        T* d = row_to_write<S, T>(dx + r * w.cols, out);
        const int64_t c = w.wide ? 0 : r % w.channels;
        const V alpha(alphas[c]), scale(weight[c]);
        V sum_alpha(0), sum_shift(0), sum_weight(0), sum_bias(0);
        if (w.wide) {
          along<T>(w.cols, [&](int64_t i, auto io) __attribute__((always_inline)) {
            using W = typename decltype(io)::W;
            const W slope = w.alpha_each ? io.load(alphas + i) : W(alpha);
            const W xi = io.load(a + i), gi = io.load(b + i);
            W t, df;
            value_and_slope<F>(fmadd(slope, xi, W(shift)), t, df);
            const W gz = gi * io.load(weight + i) * df;
            io.store(d + i, gz * slope);
            io.store(sw + i, fmadd(gi, t, io.load(sw + i)));
            io.store(sb + i, io.load(sb + i) + gi);
            if (w.alpha_each)
              io.store(sa + i, fmadd(gz, xi, io.load(sa + i)));
            else
              sum_alpha = sum_alpha + total(gz * xi);
            sum_shift = sum_shift + total(gz);
          });
        } else {
          along<T>(w.cols, [&](int64_t i, auto io) __attribute__((always_inline)) {
            using W = typename decltype(io)::W;
            const W xi = io.load(a + i), gi = io.load(b + i);
            W t, df;
            value_and_slope<F>(fmadd(W(alpha), xi, W(shift)), t, df);
            const W gz = gi * W(scale) * df;
            io.store(d + i, gz * W(alpha));
            sum_alpha = sum_alpha + total(gz * xi);
            sum_shift = sum_shift + total(gz);
            sum_weight = sum_weight + total(gi * t);
            sum_bias = sum_bias + total(gi);
          });
          s.weights[c] += sum_of<T>(sum_weight);
          s.biases[c] += sum_of<T>(sum_bias);
        }
        if (!(w.wide && w.alpha_each)) s.alphas[w.alpha_each ? c : 0] += sum_of<T>(sum_alpha);
        s.shift += sum_of<T>(sum_shift);
        write_row<S, T>(dx + r * w.cols, d, w.cols);
        if (w.wide && ((r - from) % 64 == 63 || r + 1 == to)) s.flush();
      }
    }
  });
}

// The sums as a gradient of `like`: its dtype and shape, one number where it has one.
Tensor gradient_of(const std::vector<double>& values, const OptTensor& like) {
  if (!given(like)) return at::empty({0});
  Tensor sum = at::empty(like->sizes(), like->options().memory_format(at::MemoryFormat::Contiguous));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, sum.scalar_type(), "dyt_gradient", [&] {
    scalar_t* to = sum.mutable_data_ptr<scalar_t>();
    if (sum.numel() == static_cast<int64_t>(values.size())) {
      for (size_t i = 0; i < values.size(); ++i) to[i] = static_cast<scalar_t>(values[i]);
    } else {
      double total = 0;
      for (double v : values) total += v;
      std::fill(to, to + sum.numel(), static_cast<scalar_t>(total));
    }
  });
  return sum;
}

// Gradients of x, alpha, weight, bias, shift; an empty tensor where the argument was not given.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_in, const Tensor& x_in, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
    const OptTensor& shift, int64_t squash, bool channels_last) {
  const Tensor x = x_in.contiguous(), grad = grad_in.to(x.scalar_type()).contiguous();
  Tensor dx = output_like(x);
  Tensor d_alpha, d_weight, d_bias, d_shift;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "dyt_backward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const Work<T> w(x, alpha, weight, bias, shift, channels_last);
    // A small tensor is not worth a second thread.
    const int64_t threads = std::clamp<int64_t>(w.rows / rows_at_once(w.cols), 1, at::get_num_threads());
    std::vector<Sums<T>> all(threads, Sums<T>(w.channels, w.alpha_each));
    with_squash(squash, [&](auto f) {
      backward_rows<decltype(f), scalar_t, T>(w, x.const_data_ptr<scalar_t>(), grad.const_data_ptr<scalar_t>(),
                                              dx.mutable_data_ptr<scalar_t>(), all);
    });
    auto& sum = all[0];
    for (size_t k = 1; k < all.size(); ++k) {
      for (size_t i = 0; i < sum.weights.size(); ++i) sum.weights[i] += all[k].weights[i], sum.biases[i] += all[k].biases[i];
      for (size_t i = 0; i < sum.alphas.size(); ++i) sum.alphas[i] += all[k].alphas[i];
      sum.shift += all[k].shift;
    }
    d_alpha = gradient_of(sum.alphas, alpha);
    d_weight = gradient_of(sum.weights, weight);
    d_bias = gradient_of(sum.biases, bias);
    d_shift = gradient_of({sum.shift}, shift);
  });
  return {dx, d_alpha, d_weight, d_bias, d_shift};
}

// ----------------------------------------------------------------------------------------- shapes for torch.compile

Tensor forward_meta(const Tensor& x, const OptTensor&, const OptTensor&, const OptTensor&, const OptTensor&, int64_t,
                    bool) {
  return at::empty_like(x, at::MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward_meta(
    const Tensor&, const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
    const OptTensor& shift, int64_t, bool) {
  const auto like = [&](const OptTensor& p) {
    return p.has_value() && p->defined() ? at::empty_like(*p, at::MemoryFormat::Contiguous)
                                         : at::empty({0}, x.options().dtype(at::kFloat));
  };
  return {at::empty_like(x, at::MemoryFormat::Contiguous), like(alpha), like(weight), like(bias), like(shift)};
}

// ---------------------------------------------------------------------------------------------------------- autograd

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class Fused : public torch::autograd::Function<Fused> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptTensor& alpha, const OptTensor& weight,
                        const OptTensor& bias, const OptTensor& shift, int64_t squash, bool channels_last) {
    at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("dyt::fused", "")
                               .typed<Tensor(const Tensor&, const OptTensor&, const OptTensor&, const OptTensor&,
                                             const OptTensor&, int64_t, bool)>();
    ctx->save_for_backward({x, alpha.value_or(Tensor()), weight.value_or(Tensor()), bias.value_or(Tensor()),
                            shift.value_or(Tensor())});
    ctx->saved_data["squash"] = squash;
    ctx->saved_data["channels_last"] = channels_last;
    return op.call(x, alpha, weight, bias, shift, squash, channels_last);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("dyt::fused_backward", "")
            .typed<std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(
                const Tensor&, const Tensor&, const OptTensor&, const OptTensor&, const OptTensor&, const OptTensor&,
                int64_t, bool)>();
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "dyt: the fused kernel has no second derivative; set DYT_KERNEL=reference for create_graph=True");
    const auto saved = ctx->get_saved_variables();
    const auto maybe = [&](size_t i) { return saved[i].defined() ? OptTensor(saved[i]) : OptTensor(); };
    auto [dx, da, dw, db, ds] = op.call(grads[0], saved[0], maybe(1), maybe(2), maybe(3), maybe(4),
                                        ctx->saved_data["squash"].toInt(), ctx->saved_data["channels_last"].toBool());
    const auto wanted = [&](size_t i, Tensor t) { return saved[i].defined() ? t : Tensor(); };
    return {dx, wanted(1, da), wanted(2, dw), wanted(3, db), wanted(4, ds), Tensor(), Tensor()};
  }
};

Tensor forward_autograd(const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
                        const OptTensor& shift, int64_t squash, bool channels_last) {
  return Fused::apply(x, alpha, weight, bias, shift, squash, channels_last);
}

}  // namespace

TORCH_LIBRARY(dyt, m) {
  m.def("fused(Tensor x, Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, int squash, bool channels_last) "
        "-> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("fused_backward(Tensor grad, Tensor x, Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, "
        "int squash, bool channels_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(dyt, CPU, m) {
  m.impl("fused", &forward);
  m.impl("fused_backward", &backward);
}
TORCH_LIBRARY_IMPL(dyt, Meta, m) {
  m.impl("fused", &forward_meta);
  m.impl("fused_backward", &backward_meta);
}
TORCH_LIBRARY_IMPL(dyt, Autograd, m) { m.impl("fused", &forward_autograd); }
