// Package signature finds the assembly that BoringSSL, AWS-LC and ring encrypt with
// in files that name no function. A signature is the beginning of a function's
// machine code, with what the linker fills in left open; it comes from a published
// binary, and counts only where it matches exactly once in executable code.
package signature

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Role is what a function does, and so how its arguments are read.
type Role string

// The roles; arguments are in the order of the C calling convention.
const (
	Multiply Role = "multiply"    // accumulator, …: GHASH, one block
	Hash     Role = "hash"        // accumulator, table, in, bytes: GHASH, whole blocks
	Seal     Role = "seal"        // in, out, bytes, key, counter, …
	Open     Role = "open"        // in, out, bytes, key, counter, …
	Counter  Role = "counter"     // in, out, blocks, key, counter: either way
	SealBits Role = "seal-bits"   // in, bits, out, accumulator, …
	OpenBits Role = "open-bits"   // in, bits, out, accumulator, …
	SealAll  Role = "seal-all"    // key, context, &left, in, bytes, out
	OpenAll  Role = "open-all"    // key, context, &left, in, bytes, out
	ChaSeal  Role = "chacha-seal" // out, in, bytes, ad, ad bytes, …
	ChaOpen  Role = "chacha-open" // out, in, bytes, ad, ad bytes, …
)

var roles = map[Role]bool{Multiply: true, Hash: true, Seal: true, Open: true, Counter: true, SealBits: true, OpenBits: true, SealAll: true, OpenAll: true, ChaSeal: true, ChaOpen: true}

// Signature tells one function.
type Signature struct {
	Name    string // of the function in its library's source
	Library string // boringssl, aws-lc, ring
	Build   string // of the library, where its functions differ from another's; may be empty
	Variant string // of the CPU that it is for
	Arch    string // as Go names it
	Role    Role
	Start   int      // of the function in Code, bytes
	Probe   int      // where its arguments can be read, bytes from the function's start
	Returns []int    // of its RET instructions, bytes from the function's start; of Multiply only
	From    []string // published binaries it was taken from or checked against
	Driven  string   // when and by what it was seen to work; empty: never run

	code []byte
	mask []byte // 0xff where code must match

	anchor []byte // of code, nothing of it left open
	at     int    // of anchor
}

func (s *Signature) String() string {
	return strings.Join(strings.Fields(s.Library+" "+s.Build+" "+s.Variant+" "+s.Name), " ")
}

// Set is a number of signatures.
type Set []*Signature

//go:embed signatures.json
var published []byte

// Published returns the signatures that were taken from published binaries.
func Published() (Set, error) { return Read(published) }

// file is how a signature is written down.
type file struct {
	Name    string   `json:"name"`
	Library string   `json:"library"`
	Build   string   `json:"build,omitempty"`
	Variant string   `json:"variant"`
	Arch    string   `json:"arch"`
	Role    Role     `json:"role"`
	Start   int      `json:"start,omitempty"`
	Probe   int      `json:"probe,omitempty"`
	Returns []int    `json:"returns,omitempty"`
	From    []string `json:"from"`
	Driven  string   `json:"driven,omitempty"`
	Code    []string `json:"code"` // hexadecimal, ?? for a byte that is left open, ??*N for N of them
}

// minAnchor is how many bytes in a row must be certain, so that searching is fast.
const minAnchor = 8

// maxCode bounds a signature, in bytes.
const maxCode = 1 << 13

// Read reads a set as JSON.
func Read(b []byte) (Set, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var files []file
	if err := d.Decode(&files); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	var set Set
	for _, f := range files {
		s := &Signature{
			Name: f.Name, Library: f.Library, Build: f.Build, Variant: f.Variant, Arch: f.Arch, Role: f.Role,
			Start: f.Start, Probe: f.Probe, Returns: f.Returns, From: f.From, Driven: f.Driven,
		}
		if err := s.setCode(f.Code); err != nil {
			return nil, fmt.Errorf("signature of %s (%s): %w", f.Name, f.Library, err)
		}
		set = append(set, s)
	}
	return set, nil
}

// MarshalJSON writes a signature as Read reads it.
func (s *Signature) MarshalJSON() ([]byte, error) {
	f := file{
		Name: s.Name, Library: s.Library, Build: s.Build, Variant: s.Variant, Arch: s.Arch, Role: s.Role,
		Start: s.Start, Probe: s.Probe, Returns: s.Returns, From: s.From, Driven: s.Driven,
	}
	const line = 32
	for at := 0; at < len(s.code); {
		open := 0
		for at+open < len(s.code) && s.mask[at+open] == 0 {
			open++
		}
		if open > line {
			f.Code = append(f.Code, fmt.Sprintf("??*%d", open))
			at += open
			continue
		}
		var b strings.Builder
		for end := min(at+line, len(s.code)); at < end; at++ {
			if s.mask[at] == 0 {
				b.WriteString("??")
			} else {
				fmt.Fprintf(&b, "%02x", s.code[at])
			}
		}
		f.Code = append(f.Code, b.String())
	}
	return json.Marshal(f)
}

// setCode reads code as it is written down.
func (s *Signature) setCode(lines []string) error {
	var code, mask []byte
	for _, text := range lines {
		if n, ok := strings.CutPrefix(text, "??*"); ok {
			open, err := strconv.ParseUint(n, 10, 13)
			if err != nil {
				return fmt.Errorf("code %q: %w", text, err)
			}
			code, mask = append(code, make([]byte, open)...), append(mask, make([]byte, open)...)
			continue
		}
		if len(text)%2 != 0 {
			return fmt.Errorf("code %q is not pairs of digits", text)
		}
		for i := 0; i < len(text); i += 2 {
			var b [1]byte
			if text[i:i+2] == "??" {
				code, mask = append(code, 0), append(mask, 0)
			} else if _, err := hex.Decode(b[:], []byte(text[i:i+2])); err != nil {
				return fmt.Errorf("code %q: %w", text, err)
			} else {
				code, mask = append(code, b[0]), append(mask, 0xff)
			}
		}
	}
	if len(code) > maxCode {
		return fmt.Errorf("code of %d bytes: want at most %d", len(code), maxCode)
	}
	return s.set(code, mask)
}

// set takes code, and finds the longest run of it that is certain.
func (s *Signature) set(code, mask []byte) error {
	s.code, s.mask = code, mask
	run := 0
	for i := range code {
		if mask[i] == 0 {
			run = 0
			continue
		}
		if run++; run > len(s.anchor) {
			s.at = i + 1 - run
			s.anchor = code[s.at : i+1]
		}
	}
	switch {
	case !roles[s.Role]:
		return fmt.Errorf("role %q is none", s.Role)
	case s.Start < 0 || s.Start >= len(code):
		return fmt.Errorf("the function starts at byte %d of %d", s.Start, len(code))
	case len(s.anchor) < minAnchor:
		return fmt.Errorf("no %d bytes in a row are certain", minAnchor)
	}
	return nil
}

// matches reports whether the signature's code stands at the beginning of b.
func (s *Signature) matches(b []byte) bool {
	if len(b) < len(s.code) {
		return false
	}
	for i, c := range s.code {
		if (b[i]^c)&s.mask[i] != 0 {
			return false
		}
	}
	return true
}

// For returns the signatures of an architecture.
func (set Set) For(arch string) (own Set) {
	for _, s := range set {
		if s.Arch == arch {
			own = append(own, s)
		}
	}
	return own
}
