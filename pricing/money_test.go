package pricing

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

func (m Money) big() *big.Int {
	b := big.NewInt(m.hi)
	return b.Lsh(b, 64).Add(b, new(big.Int).SetUint64(m.lo))
}

func mustMoney(t testing.TB, s string) Money {
	t.Helper()
	m, err := ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMoneyText(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "0.000": "0", "1": "1", "+1.50": "1.5", "-3.25": "-3.25",
		".5": "0.5", "5.": "5", "1e-10": "0.0000000001", "2.5E3": "2500", "100e-2": "1",
		"0.000000000000000000001":      "0.000000000000000000001",
		"10.5000000000000000000000000": "10.5", "0000123": "123",
		"100000000000000000": "100000000000000000", "1000000000000000000e-18": "1", "0e99": "0",
	} {
		if got := mustMoney(t, in).String(); got != want {
			t.Errorf("ParseMoney(%q) = %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "-", ".", "e1", "1e", "1e+", "abc", "1.2.3", "1_000", "0x10", "NaN", "Inf",
		"1e-22", "0.0000000000000000000001", "1e18", "999999999999999999999", "1e999", "1e9999", "--1", "1 "} {
		if m, err := ParseMoney(in); err == nil {
			t.Errorf("ParseMoney(%q) = %s, want an error", in, m)
		}
	}
}

func TestMoneyArithmeticAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	lim := maxMoney.big()
	for range 20000 {
		a := Money{int64(r.Uint64()) >> (r.UintN(64)), r.Uint64()}
		b := Money{int64(r.Uint64()) >> (r.UintN(64)), r.Uint64()}
		n, d := r.Uint64()>>r.UintN(64), r.Uint64()>>r.UintN(64)|1
		check := func(what string, got Money, want *big.Int) {
			if want.CmpAbs(lim) >= 0 {
				if !got.saturated() {
					t.Fatalf("%s of %v, %v does not saturate", what, a, b)
				}
				return
			}
			if got.big().Cmp(want) != 0 {
				t.Fatalf("%s of %v, %v (%d, %d) = %v, want %v", what, a, b, n, d, got.big(), want)
			}
		}
		check("sum", a.Add(b), new(big.Int).Add(a.big(), b.big()))
		check("difference", a.Sub(b), new(big.Int).Sub(a.big(), b.big()))
		check("product", a.Mul(n), new(big.Int).Mul(a.big(), new(big.Int).SetUint64(n)))
		p := new(big.Int).Mul(a.big(), new(big.Int).SetUint64(n))
		neg := p.Sign() < 0
		q, rem := new(big.Int).QuoRem(p.Abs(p), new(big.Int).SetUint64(d), new(big.Int))
		if c := rem.Lsh(rem, 1).Cmp(new(big.Int).SetUint64(d)); c > 0 || c == 0 && q.Bit(0) == 1 {
			q.Add(q, big.NewInt(1))
		}
		if neg {
			q.Neg(q)
		}
		check("quotient", a.MulDiv(n, d), q)
		if a.Cmp(b) != a.big().Cmp(b.big()) {
			t.Fatalf("Cmp(%v, %v)", a, b)
		}
		if back := mustMoney(t, a.String()); !a.saturated() && back != a {
			t.Fatalf("%v reads back as %v", a, back)
		}
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"1.5", "-2e-10", "1e", "0.00000000000000000000001", strings.Repeat("9", 60)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoney(s)
		if err != nil {
			return
		}
		if back := mustMoney(t, m.String()); back != m {
			t.Fatalf("%q: %v reads back as %v", s, m, back)
		}
		if len(s) < 30 {
			if want, ok := new(big.Rat).SetString(s); ok {
				got, _ := new(big.Rat).SetString(m.String())
				if got.Cmp(want) != 0 {
					t.Fatalf("%q = %v", s, m)
				}
			}
		}
	})
}

func TestFloatIsTheNearest(t *testing.T) {
	for text, want := range map[string]float64{"100": 100, "-0.1": -0.1, "0.000000000000000000001": 1e-21, "1234567.000000000000000000001": 1234567, "0": 0} {
		if got := mustMoney(t, text).Float64(); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
