package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func mustPublished(t testing.TB) Set {
	t.Helper()
	set, err := Published()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func keepOn(int) error { return nil }

// noise is bytes in which nothing matches by chance.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// put writes the code of s to b, with what is left open filled with something.
func put(b []byte, at int, s *Signature) {
	for i, c := range s.code {
		if s.mask[i] == 0 {
			c = 0xa5
		}
		b[at+i] = c
	}
}

// TestFind: each signature at every awkward place: at the start, over the border of
// two pieces, at the end.
func TestFind(t *testing.T) {
	const size = 2*piece + 4096
	clean := noise(size)
	for _, s := range mustPublished(t) {
		for _, at := range []int{0, 1, piece - 1, piece - len(s.code)/2, piece - len(s.code), piece, size - len(s.code)} {
			b := slices.Clone(clean)
			put(b, at, s)
			found, refused, err := Set{s}.Find(bytes.NewReader(b), []Segment{{0, size}}, keepOn)
			if err != nil || len(refused) != 0 || len(found) != 1 || found[0].Offset != uint64(at+s.Start) {
				t.Fatalf("%s %s at %d: %v, %v, %v", s.Library, s.Name, at, found, refused, err)
			}
		}
	}
}

// TestTwice: what matches twice is refused, and said to be.
func TestTwice(t *testing.T) {
	s := mustPublished(t).For("amd64")[0]
	b := noise(3 * piece)
	put(b, 100, s)
	put(b, 2*piece, s)
	found, refused, err := Set{s}.Find(bytes.NewReader(b), []Segment{{0, uint64(len(b))}}, keepOn)
	if err != nil || len(found) != 0 || !errors.Is(refused[s.String()], ErrTwice) {
		t.Errorf("%v, %v, %v", found, refused, err)
	}
}

// TestOnlyCode: outside of executable segments nothing is found.
func TestOnlyCode(t *testing.T) {
	s := mustPublished(t).For("amd64")[0]
	b := noise(piece)
	put(b, 1000, s)
	for _, seg := range [][]Segment{nil, {{0, 1000}}, {{1001, 10000}}, {{0, uint64(1000 + len(s.code) - 1)}}} {
		if found, _, err := (Set{s}).Find(bytes.NewReader(b), seg, keepOn); err != nil || len(found) != 0 {
			t.Errorf("in %v: %v, %v", seg, found, err)
		}
	}
}

// TestIn: what was found in one file is known again at the same place of another, whole and
// in code only.
func TestIn(t *testing.T) {
	s := mustPublished(t).For("amd64")[0]
	b := noise(piece)
	const at = 1000
	put(b, at, s)
	m, size := Match{s, uint64(at + s.Start)}, uint64(len(s.code))
	other := slices.Clone(b)
	other[at+s.at] ^= 1
	for _, k := range []struct {
		name    string
		file    []byte
		segment Segment
		want    bool
	}{
		{"a copy", b, Segment{at, size}, true},
		{"other code", other, Segment{at, size}, false},
		{"code in part", b, Segment{at, size - 1}, false},
		{"no code", b, Segment{at + 1, size}, false},
		{"a segment to the end of everything", b, Segment{at + 1, 1<<64 - 1}, false},
		{"a shorter file", b[:at+size-1], Segment{at, size}, false},
	} {
		if got := m.In(bytes.NewReader(k.file), []Segment{k.segment}); got != k.want {
			t.Errorf("%s: %v", k.name, got)
		}
	}
}

// TestHostile: a segment larger than its file ends with the file; one of 16 EiB too.
func TestHostile(t *testing.T) {
	set := mustPublished(t)
	for _, seg := range []Segment{{0, 1 << 62}, {100, 1 << 40}, {1 << 40, 1 << 20}, {0, 0}} {
		if _, _, err := set.Find(bytes.NewReader(noise(5000)), []Segment{seg}, keepOn); err != nil {
			t.Errorf("%v: %v", seg, err)
		}
	}
}

// TestStops: the caller can end a search.
func TestStops(t *testing.T) {
	stop := errors.New("stop")
	_, _, err := mustPublished(t).Find(bytes.NewReader(noise(3*piece)), []Segment{{0, 3 * piece}}, func(int) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestComplete: a variant of which a function is missing takes its library with it.
func TestComplete(t *testing.T) {
	set := mustPublished(t).For("amd64")
	var all []Match
	for _, s := range set {
		if s.Library == "boringssl" {
			all = append(all, Match{Signature: s})
		}
	}
	if got := set.Complete(all); len(got["boringssl"]) != len(all) || len(got) != 1 {
		t.Fatalf("whole: %d of %d", len(got["boringssl"]), len(all))
	}
	if got := set.Complete(all[1:]); len(got) != 0 {
		t.Error("a library with a variant in part was taken")
	}
}

// TestCompleteBuild: of a named build every function must be there; of two that are,
// which share the functions they have alike, one is taken.
func TestCompleteBuild(t *testing.T) {
	of := func(build, variant, name string) *Signature {
		return &Signature{Library: "ring", Build: build, Variant: variant, Name: name}
	}
	old := Set{of("1", "aesni", "seal"), of("1", "aesni", "open"), of("1", "chacha", "both")}
	set := append(slices.Clone(old), of("2", "aesni", "seal"), of("2", "aesni", "open"))
	match := func(some ...*Signature) (all []Match) {
		for _, s := range some {
			all = append(all, Match{Signature: s})
		}
		return all
	}
	if got := set.Complete(match(old...))["ring"]; len(got) != 3 {
		t.Errorf("whole: %v", got)
	}
	if got := set.Complete(match(old[:2]...))["ring"]; got != nil {
		t.Errorf("without a variant: %v", got)
	}
	if got := set.Complete(match(set...))["ring"]; len(got) != 3 || got[0].Build != "1" {
		t.Errorf("both: %v", got)
	}
	if got := set.Complete(match(append(set[3:], old[0])...))["ring"]; len(got) != 2 || got[0].Build != "2" {
		t.Errorf("the other, and some of the first: %v", got)
	}
}

// TestPublished: what is written down is well-formed, says where it comes from, and
// reads back the same.
func TestPublished(t *testing.T) {
	set := mustPublished(t)
	type function struct{ library, build, variant, arch, name string }
	seen := make(map[function]bool)
	for _, s := range set {
		key := function{s.Library, s.Build, s.Variant, s.Arch, s.Name}
		if seen[key] {
			t.Errorf("%v stands there twice", key)
		}
		seen[key] = true
		if len(s.From) == 0 || !strings.Contains(s.From[0], "@") {
			t.Errorf("%v does not say which published binary it is from", key)
		}
		if s.Role == Multiply && s.Library != "ring" && len(s.Returns) == 0 {
			t.Errorf("%v has no return", key)
		}
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range set {
		if !bytes.Equal(s.code, again[i].code) || !bytes.Equal(s.mask, again[i].mask) {
			t.Errorf("%s is another when it is read again", s.Name)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	const good = `[{"name":"f","library":"l","variant":"v","arch":"amd64","role":"seal","from":["p@1"],"code":["0102030405060708"]}]`
	if _, err := Read([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"an unknown key":    strings.Replace(good, `"name"`, `"nome"`, 1),
		"an unknown role":   strings.Replace(good, "seal", "sail", 1),
		"odd digits":        strings.Replace(good, "0708", "070", 1),
		"no digits":         strings.Replace(good, "0708", "07zz", 1),
		"too little":        strings.Replace(good, "0708", "07??", 1),
		"a start outside":   strings.Replace(good, `"role"`, `"start":8,"role"`, 1),
		"too much":          strings.Replace(good, "0102", `0102","??*8191","`, 1),
		"a length too long": strings.Replace(good, "0102", `0102","??*99999","`, 1),
	} {
		if _, err := Read([]byte(text)); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

// TestMemory: a search holds one piece, whatever the segment's size.
func TestMemory(t *testing.T) {
	set := mustPublished(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := set.Find(zeros{}, []Segment{{0, 64 << 20}}, keepOn); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4*piece {
		t.Errorf("%d bytes were taken", grown)
	}
}

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) { clear(b); return len(b), nil }

// FuzzFind: any file, cut into any segments.
func FuzzFind(f *testing.F) {
	set := mustPublished(f)
	b := noise(4096)
	put(b, 64, set[0])
	f.Add(b, uint64(0), uint64(4096))
	f.Add(b, uint64(63), uint64(1<<63))
	f.Add([]byte{}, uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, at, size uint64) {
		found, _, err := set.Find(bytes.NewReader(b), []Segment{{at >> 1, size}}, keepOn)
		if err != nil {
			return
		}
		for _, m := range found {
			begin := m.Offset - uint64(m.Start)
			if begin < at>>1 || begin > uint64(len(b)) || !m.matches(b[begin:]) {
				t.Errorf("%s at %#x of %d bytes", m.Name, m.Offset, len(b))
			}
		}
	})
}

// FuzzRead: a set from anywhere.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`[{"name":"f","library":"l","variant":"v","arch":"amd64","role":"seal","from":["p@1"],"code":["0102030405060708","??*12"]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := Read(b)
		if err != nil {
			return
		}
		if _, _, err := set.Find(bytes.NewReader(b), []Segment{{0, uint64(len(b))}}, keepOn); err != nil {
			t.Error(err)
		}
	})
}

// TestProbesStandOnOldInstructions: the kernel takes the opcode byte of a VEX or EVEX
// instruction for that of an old one. Of vpshufb's, 00, that does no harm.
func TestProbesStandOnOldInstructions(t *testing.T) {
	for _, s := range mustPublished(t).For("amd64") {
		in := s.code[s.Start+s.Probe:]
		switch in[0] {
		case 0x62, 0xc5:
			t.Errorf("%s %s: a probe on % x", s.Library, s.Name, in[:6])
		case 0xc4:
			if in[1]&0x1f != 2 || in[3] != 0 {
				t.Errorf("%s %s: a probe on % x, which is no vpshufb", s.Library, s.Name, in[:6])
			}
		}
		for _, at := range s.Returns {
			if ret := s.code[s.Start+at:]; ret[0] != 0xc3 && (ret[0] != 0xf3 || ret[1] != 0xc3) {
				t.Errorf("%s %s: no return at %d: % x", s.Library, s.Name, at, ret[:2])
			}
		}
	}
}
