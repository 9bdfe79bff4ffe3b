package jsonstream

import (
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

type pieces struct {
	p    []string
	w    []byte
	time flow.Time
	err  error
}

func (b *pieces) Window() ([]byte, error) {
	for len(b.w) == 0 {
		if len(b.p) == 0 {
			return nil, b.err
		}
		b.w, b.p, b.time = []byte(b.p[0]), b.p[1:], b.time+1
	}
	return b.w, nil
}
func (b *pieces) Resume() bool    { return false }
func (b *pieces) Discard(n int)   { b.w = b.w[n:] }
func (b *pieces) Time() flow.Time { return b.time }
func (b *pieces) Read(p []byte) (int, error) {
	w, err := b.Window()
	n := copy(p, w)
	b.Discard(n)
	return n, err
}

func cutUp(s string, size func() int) (out []string) {
	for len(s) > 0 {
		n := min(size(), len(s))
		out, s = append(out, s[:n]), s[n:]
	}
	return out
}

func values(b exchange.Body) (out []string, err error) {
	r := NewReader(b)
	for {
		if err := r.Next(); err != nil {
			return out, err
		}
		v, err := io.ReadAll(r)
		if err != nil {
			return append(out, string(v)+"!"), err
		}
		out = append(out, string(v))
	}
}

var vectors = []struct {
	in   string
	want []string
	err  error
}{
	{`{"a":1}` + "\n" + `{"b":"}"}` + "\n", []string{`{"a":1}`, `{"b":"}"}`}, io.EOF},
	{"[{\"a\":[1,2]}\r\n,\r\n{\"b\":\"\\\"]\"}]\r\n", []string{`{"a":[1,2]}`, `{"b":"\"]"}`}, io.EOF},
	{"[{\n  \"a\": {\n\"b\": \"\\\\\"}\n}\n]", []string{"{\n  \"a\": {\n\"b\": \"\\\\\"}\n}"}, io.EOF},
	{`1 "two" true` + "\n" + `null`, []string{`1`, `"two"`, `true`}, exchange.ErrCut},
	{"[1,2]", []string{"1", "2"}, io.EOF},
	{"[]", nil, io.EOF},
	{"", nil, io.EOF},
	{`{"a":1}{"b":2}`, []string{`{"a":1}`, `{"b":2}`}, io.EOF},
	{"\x1e{}\n\x1e{}\n", []string{"{}", "{}"}, io.EOF},
	{`}`, nil, ErrSyntax},
	{`[{}] {}`, []string{"{}"}, ErrSyntax},
	{`{"a":`, nil, exchange.ErrCut},
}

func TestValues(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, v := range vectors {
		for range 20 {
			size := 1 + rnd.IntN(len(v.in)+1)
			got, err := values(&pieces{p: cutUp(v.in, func() int { return 1 + rnd.IntN(size) }), err: io.EOF})
			if n := len(got); n > 0 && strings.HasSuffix(got[n-1], "!") {
				got = got[:n-1]
			}
			if !(len(got) == 0 && len(v.want) == 0) && !reflect.DeepEqual(got, v.want) || !errors.Is(err, v.err) {
				t.Errorf("%q: %q, %v; want %q, %v", v.in, got, err, v.want, v.err)
			}
		}
	}
}

// TestEndsWithItsLastByte: neither a newline nor a comma is waited for.
func TestEndsWithItsLastByte(t *testing.T) {
	b := &pieces{p: []string{`[{"a":1`, `}`, "\r\n,", `{"b":2}`, `]`}, err: io.EOF}
	r := NewReader(b)
	for _, want := range []flow.Time{2, 4} {
		r.Next()
		io.Copy(io.Discard, r)
		if b.Time() != want {
			t.Errorf("ended at %d, want %d", b.Time(), want)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.in, uint64(1))
	}
	f.Fuzz(func(t *testing.T, in string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		whole, err1 := values(&pieces{p: cutUp(in, func() int { return len(in) }), err: io.EOF})
		split, err2 := values(&pieces{p: cutUp(in, func() int { return 1 + rnd.IntN(8) }), err: io.EOF})
		if !reflect.DeepEqual(whole, split) || err1 != err2 {
			t.Errorf("whole %q %v, split %q %v", whole, err1, split, err2)
		}
	})
}
