package pricing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// moneyDecimals is the number of decimal places Money holds.
const moneyDecimals = 21

// Money is an exact amount of US dollars: a signed 128-bit count of 1e-21 USD, so
// that a price per million tokens keeps 15 decimals when it is a price per token.
// It holds ±1.7e17 USD; arithmetic that leaves that range saturates at its end and
// stays there. The zero value is zero dollars. Values are comparable with ==.
type Money struct {
	hi int64
	lo uint64
}

var (
	maxMoney = Money{math.MaxInt64, math.MaxUint64}
	minMoney = Money{math.MinInt64, 1} // -maxMoney
)

// Why ParseMoney refuses an amount.
var (
	errNotMoney  = errors.New("not a decimal number")
	errFineMoney = fmt.Errorf("more than %d decimals", moneyDecimals)
	errBigMoney  = errors.New("too large")
)

// ParseMoney reads a decimal number of US dollars: digits with an optional sign,
// point and exponent. What does not fit exactly is an error, never rounded.
func ParseMoney(s string) (Money, error) { return parseDecimal(s, moneyDecimals) }

// parseDecimal reads s and scales it by 10^scale; the result must be whole.
func parseDecimal(s string, scale int) (Money, error) {
	m, rest, err := scanDecimal(s, scale)
	if err == nil && rest > 0 {
		err = fmt.Errorf("%q: %w", clip(s), errFineMoney)
	}
	return m, err
}

// roundDecimal is parseDecimal for what others computed in floating point: decimals
// beyond the scale are rounded half to even.
func roundDecimal(s string, scale int) (Money, error) {
	m, rest, err := scanDecimal(s, scale)
	for ; rest > 0 && err == nil; rest -= min(rest, 19) {
		m = m.MulDiv(1, tens[min(rest, 19)])
	}
	return m, err
}

var tens = func() (t [20]uint64) {
	t[0] = 1
	for i := 1; i < len(t); i++ {
		t[i] = t[i-1] * 10
	}
	return t
}()

// scanDecimal reads s as m×10^-rest of the scaled unit, with rest at least zero.
func scanDecimal(s string, scale int) (m Money, rest int, err error) {
	text := s
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg, s = s[0] == '-', s[1:]
	}
	mantissa, exp := s, 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa = s[:i]
		e, err := parseExponent(s[i+1:])
		if err != nil {
			return Money{}, 0, fmt.Errorf("%q: %w", clip(text), err)
		}
		exp = e
	}
	digits, point := 0, false
	zeros := 0 // zeros held back: trailing ones must not count as precision
	for i := range len(mantissa) {
		c := mantissa[i]
		switch {
		case c == '.' && !point:
			point = true
			continue
		case c < '0' || c > '9':
			return Money{}, 0, fmt.Errorf("%q: %w", clip(text), errNotMoney)
		}
		digits++
		if point {
			exp--
		}
		if c == '0' {
			zeros++
			continue
		}
		for ; zeros > 0 && m != (Money{}); zeros-- {
			m = m.Mul(10)
		}
		zeros = 0
		m = m.Mul(10).Add(Money{0, uint64(c - '0')})
		if m == maxMoney {
			return Money{}, 0, fmt.Errorf("%q: %w", clip(text), errBigMoney)
		}
	}
	if digits == 0 {
		return Money{}, 0, fmt.Errorf("%q: %w", clip(text), errNotMoney)
	}
	if m == (Money{}) {
		return m, 0, nil
	}
	exp += zeros + scale
	if exp > 40 {
		return Money{}, 0, fmt.Errorf("%q: %w", clip(text), errBigMoney)
	}
	for ; exp > 0; exp-- {
		m = m.Mul(10)
	}
	if m == maxMoney {
		return Money{}, 0, fmt.Errorf("%q: %w", clip(text), errBigMoney)
	}
	if neg {
		m = m.Neg()
	}
	return m, max(0, -exp), nil
}

func parseExponent(s string) (int, error) {
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg, s = s[0] == '-', s[1:]
	}
	if s == "" || len(s) > 3 {
		return 0, errNotMoney
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, errNotMoney
		}
		n = n*10 + int(s[i]-'0')
	}
	if neg {
		n = -n
	}
	return n, nil
}

// clip bounds what an error quotes of its input.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// String returns the plain decimal, without an exponent and without trailing zeros.
func (m Money) String() string {
	var buf [48]byte
	return string(m.AppendText(buf[:0]))
}

// AppendText appends what String returns.
func (m Money) AppendText(b []byte) []byte {
	if m.hi < 0 {
		b = append(b, '-')
		m = m.Neg()
	}
	const split = 1e18 // digits of one machine word
	var digits [40]byte
	n := len(digits)
	hi, lo := uint64(m.hi), m.lo
	for range 3 {
		q1, r := bits.Div64(0, hi, split)
		q0, rem := bits.Div64(r, lo, split)
		hi, lo = q1, q0
		for range 18 {
			if n == 0 {
				break
			}
			n--
			digits[n] = byte('0' + rem%10)
			rem /= 10
		}
	}
	whole, frac := digits[:len(digits)-moneyDecimals], digits[len(digits)-moneyDecimals:]
	for len(whole) > 1 && whole[0] == '0' {
		whole = whole[1:]
	}
	for len(frac) > 0 && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	b = append(b, whole...)
	if len(frac) > 0 {
		b = append(append(b, '.'), frac...)
	}
	return b
}

// MarshalText is String.
func (m Money) MarshalText() ([]byte, error) { return m.AppendText(nil), nil }

// UnmarshalText is ParseMoney.
func (m *Money) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMoney(string(b))
	return err
}

// Float64 returns the nearest float64 in US dollars, for metrics only.
func (m Money) Float64() float64 {
	f, _ := strconv.ParseFloat(m.String(), 64) // a quotient would be rounded twice, and 100 become 99.99999999999999
	return f
}

// IsZero reports whether m is exactly zero.
func (m Money) IsZero() bool { return m == Money{} }

// Sign returns -1, 0 or 1.
func (m Money) Sign() int {
	switch {
	case m.hi < 0:
		return -1
	case m.IsZero():
		return 0
	}
	return 1
}

// Neg returns -m.
func (m Money) Neg() Money {
	lo, borrow := bits.Sub64(0, m.lo, 0)
	hi, _ := bits.Sub64(0, uint64(m.hi), borrow)
	return Money{int64(hi), lo}
}

// Add returns m+n.
func (m Money) Add(n Money) Money {
	lo, carry := bits.Add64(m.lo, n.lo, 0)
	hi, _ := bits.Add64(uint64(m.hi), uint64(n.hi), carry)
	if sum := (Money{int64(hi), lo}); sum != (Money{math.MinInt64, 0}) &&
		((m.hi < 0) != (n.hi < 0) || (sum.hi < 0) == (m.hi < 0)) {
		return sum
	}
	if m.hi < 0 {
		return minMoney
	}
	return maxMoney
}

// Sub returns m-n.
func (m Money) Sub(n Money) Money { return m.Add(n.Neg()) }

// Cmp returns -1, 0 or 1 as m is less than, equal to or greater than n.
func (m Money) Cmp(n Money) int {
	switch {
	case m.hi < n.hi, m.hi == n.hi && m.lo < n.lo:
		return -1
	case m == n:
		return 0
	}
	return 1
}

// Mul returns m×n, exactly.
func (m Money) Mul(n uint64) Money { return m.MulDiv(n, 1) }

// MulDiv returns m×n/d, rounded half to even at 1e-21 USD; d must not be zero.
func (m Money) MulDiv(n, d uint64) Money {
	if m.hi < 0 {
		return m.Neg().MulDiv(n, d).Neg()
	}
	// 192-bit product c:b:a.
	b0, a := bits.Mul64(m.lo, n)
	c, b1 := bits.Mul64(uint64(m.hi), n)
	b, carry := bits.Add64(b0, b1, 0)
	c += carry
	if d != 1 {
		var r uint64
		c, r = c/d, c%d
		b, r = bits.Div64(r, b, d)
		a, r = bits.Div64(r, a, d)
		if half := d - r; r > half || r == half && a&1 == 1 {
			a, carry = bits.Add64(a, 1, 0)
			b, carry = bits.Add64(b, 0, carry)
			c += carry
		}
	}
	if c != 0 || b > math.MaxInt64 {
		return maxMoney
	}
	return Money{int64(b), a}
}

// saturated reports whether an amount left the range of Money.
func (m Money) saturated() bool { return m == maxMoney || m == minMoney }
