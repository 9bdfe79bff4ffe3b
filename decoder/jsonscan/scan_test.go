package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// pieces gives its bytes in pieces of random length, then err.
type pieces struct {
	b   []byte
	rnd *rand.Rand
	err error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, p.err
	}
	n := min(len(p.b), len(b), p.rnd.IntN(9))
	copy(b, p.b[:n])
	p.b = p.b[n:]
	return n, nil
}

// view reads one value as encoding/json with UseNumber would.
func view(s *Scanner) any {
	switch s.Kind() {
	case Object:
		m := map[string]any{}
		for key := range s.Object {
			k := string(mend(key))
			m[k] = view(s)
		}
		return m
	case Array:
		l := []any{}
		for range s.Array {
			l = append(l, view(s))
		}
		return l
	case String:
		t, _, _ := s.Text(1 << 20)
		return t
	case Number:
		t, _ := s.Decimal()
		return json.Number(t)
	case Bool:
		b, _ := s.Bool()
		return b
	}
	s.Skip()
	return nil
}

func scan(r io.Reader) *Scanner {
	s := new(Scanner)
	s.Reset(r)
	return s
}

var vectors = []string{
	`{"a":1,"b":[true,false,null,-1.5e+3,"x\n\"\\\u00e9\ud83d\ude00"],"c":{"d":{}}}`,
	` { "usage" : { "prompt_tokens" : 12 , "completion_tokens" : 0 } , "choices" : [ ] } `,
	`"\ud83d\u0041\ud83d\ud83d\ude00\ude00"`,
	"\"\xff\xe2\x82\"", `[]`, `{}`, `0`, `-0`, `1e5`, `""`, `[[[[]]]]`, `[1,2,3]`,
	`{"long":"` + strings.Repeat(`héllo "`[:6]+`\n`, 2000) + `","n":123456789012345678901234567890}`,
	`{"` + strings.Repeat("k", 300) + `":1}`,
	strings.Repeat(" ", 5000) + `{"late":true}`,
}

func FuzzScan(f *testing.F) {
	for i, v := range vectors {
		f.Add([]byte(v), uint64(i))
	}
	for _, v := range []string{`{"a":1`, `{"a" 1}`, `[1 2]`, `tru`, `"\u12"`, `{"a":NaN,"b":-Infinity}`, `[1,]`, "\xef\xbb\xbf{}", `01`, `"\q"`} {
		f.Add([]byte(v), uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		s := scan(&pieces{b: b, rnd: rand.New(rand.NewPCG(seed, 0)), err: io.EOF})
		got := view(s)
		err := s.End()
		s.ResetBytes(b)
		if got2 := view(s); fmt.Sprint(s.End()) != fmt.Sprint(err) || err == nil && !reflect.DeepEqual(got, got2) {
			t.Fatalf("in pieces %#v, %v; whole %#v, %v", got, err, got2, s.End())
		}
		s.ResetBytes(b)
		s.Skip()
		skipped := s.End()
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var want any
		if !json.Valid(b) || d.Decode(&want) != nil || deep(b) || longOnes(want) {
			return
		}
		if err != nil || skipped != nil {
			t.Fatalf("valid JSON: read %v, skip %v", err, skipped)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %#v, want %#v", got, want)
		}
	})
}

// longOnes reports whether v holds a key or a number that the Scanner cuts.
func longOnes(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if len(k) >= MaxText || longOnes(e) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if longOnes(e) {
				return true
			}
		}
	case json.Number:
		return len(v) > maxNumber
	}
	return false
}

func deep(b []byte) bool { return bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > MaxDepth }

func TestVectorsInEverySplit(t *testing.T) {
	for _, v := range vectors {
		for seed := range uint64(20) {
			s := scan(&pieces{b: []byte(v), rnd: rand.New(rand.NewPCG(seed, 1)), err: io.EOF})
			got := view(s)
			if err := s.End(); err != nil {
				t.Fatalf("%.60s: %v", v, err)
			}
			var want any
			d := json.NewDecoder(strings.NewReader(v))
			d.UseNumber()
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if !longOnes(want) && !reflect.DeepEqual(got, want) {
				t.Fatalf("%.60s: got %.100v want %.100v", v, got, want)
			}
		}
	}
}

func TestCutNeverGivesANumber(t *testing.T) {
	lost := errors.New("lost")
	const body = `{"usage":{"total_tokens":12345,"x":"y"}}`
	for _, fail := range []error{io.EOF, lost} {
		for cut := range len(body) {
			s := scan(&pieces{b: []byte(body[:cut]), rnd: rand.New(rand.NewPCG(uint64(cut), 0)), err: fail})
			var n int64
			var ok bool
			for key := range s.Object {
				if string(key) == "usage" {
					for key := range s.Object {
						if string(key) == "total_tokens" {
							n, ok = s.Int()
						}
					}
				}
			}
			if ok && n != 12345 || !ok && n != 0 {
				t.Fatalf("cut at %d: %d, %v", cut, n, ok)
			}
			want := fail
			if fail == io.EOF {
				want = io.ErrUnexpectedEOF
			}
			if s.Err() != want {
				t.Fatalf("cut at %d: %v, want %v", cut, s.Err(), want)
			}
		}
	}
}

func TestOtherKindsAreAbsent(t *testing.T) {
	var s Scanner
	s.ResetBytes([]byte(`{"a":null,"b":"7","c":{"d":1},"e":7.5,"f":1e2,"g":[1],"h":true,"i":NaN}`))
	id := "kept"
	for key := range s.Object {
		switch string(key) {
		case "a", "b", "c", "e", "h", "i":
			if n, ok := s.Int(); ok {
				t.Errorf("%s: %d", key, n)
			}
		case "f":
			if n, ok := s.Int(); n != 100 || !ok {
				t.Errorf("1e2 is %d, %v", n, ok)
			}
		case "g":
			if s.Into(&id); id != "kept" {
				t.Error(id)
			}
		}
	}
	if s.End() != nil {
		t.Fatal(s.Err())
	}
}

func TestLeavingALoopSkipsTheRest(t *testing.T) {
	var s Scanner
	s.ResetBytes([]byte(`[{"a":1,"b":[2,{"c":3}]},[4,5,6],7]`))
	var last int64
	for i := range s.Array {
		switch i {
		case 0:
			for range s.Object {
				break
			}
		case 1:
			for range s.Array {
				break
			}
		default:
			last, _ = s.Int()
		}
	}
	if last != 7 || s.End() != nil {
		t.Fatal(last, s.Err())
	}
}

func TestTextIsCutAtACharacter(t *testing.T) {
	for _, in := range []string{`"aé😀z"`, `"a\u00e9\ud83d\ude00z"`} {
		for max, want := range []string{"", "a", "a", "aé", "aé", "aé", "aé", "aé😀", "aé😀z", "aé😀z"} {
			s := scan(iotest.OneByteReader(strings.NewReader(in)))
			got, n, ok := s.Text(max)
			if got != want || n != 8 || !ok {
				t.Errorf("%s at %d: %q, %d, %v", in, max, got, n, ok)
			}
		}
	}
}

func TestDepth(t *testing.T) {
	n := 100_000
	s := scan(strings.NewReader(strings.Repeat("[", n) + strings.Repeat("]", n)))
	if s.Skip(); s.End() != nil {
		t.Fatal(s.Err())
	}
	s.Reset(strings.NewReader(strings.Repeat("[", n)))
	view(s)
	var bad *SyntaxError
	if !errors.As(s.Err(), &bad) || bad.Offset != MaxDepth {
		t.Fatal(s.Err())
	}
}

func TestNoAllocations(t *testing.T) {
	b := []byte(`{"id":"abc","choices":[{"delta":{"content":"he\"llo"},"finish_reason":null}],"usage":{"total_tokens":3}}`)
	var s Scanner
	id := "abc"
	var n, total int64
	got := testing.AllocsPerRun(100, func() {
		s.ResetBytes(b)
		for key := range s.Object {
			switch string(key) {
			case "id":
				s.Into(&id)
			case "choices":
				for range s.Array {
					for key := range s.Object {
						if string(key) == "delta" {
							for range s.Object {
								k, _ := s.Stream(func(p []byte) { n += int64(len(p)) })
								n += k
							}
						}
					}
				}
			case "usage":
				for range s.Object {
					total, _ = s.Int()
				}
			}
		}
	})
	if got != 0 || total != 3 || s.Err() != nil {
		t.Fatalf("%v allocations, total %d, %v", got, total, s.Err())
	}
}
