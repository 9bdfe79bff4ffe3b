package probes

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// lay returns a function as if its first call were to the function at to.
func (fn realFunction) lay(start, to uint64) door {
	code := append([]byte(nil), fn.code...)
	for at := 0; at < len(code); {
		in, ok := decodeStep(code[at:])
		if !ok {
			break
		}
		at += in.Len
		if code[at-in.Len] == 0xe8 {
			binary.LittleEndian.PutUint32(code[at-4:], uint32(to-start-uint64(at)))
			break
		}
	}
	return door{start, code}
}

// TestBehind: one function is found behind real doors, and none where it is not sure.
func TestBehind(t *testing.T) {
	const body = 0x8000
	at := make(map[string]realFunction)
	for _, fn := range realFunctions(t) {
		at[fn.file+" "+fn.name] = fn
	}
	for file, want := range map[string]map[string]bool{
		"libssl1.1 1.1.1w-0+deb11u1": {"read": true, "write": true},
		"libssl3 3.0.22-1~deb12u2":   {"read": true, "write": true},
		"libssl3t64 3.5.9-1~deb13u1": {"read": true, "write": false}, // SSL_write_ex goes by SSL_write_ex2
		"libssl3t64 3.6.5-1":         {"read": true, "write": false},
		"nodejs 20.20.2":             {"read": false, "write": false}, // inlined
	} {
		for name, ok := range want {
			plain, ex := at[file+" SSL_"+name], at[file+" SSL_"+name+"_ex"]
			start, found := behind(plain.lay(0x4000, body), ex.lay(0x5000, body))
			if found != ok || ok && start != body {
				t.Errorf("%s, SSL_%s: %#x, %v", file, name, start, found)
			}
			if _, found := behind(plain.lay(0x4000, body), ex.lay(0x5000, body+16)); found {
				t.Errorf("%s, SSL_%s: found behind doors to two functions", file, name)
			}
		}
	}

	plain := at["libssl3 3.0.22-1~deb12u2 SSL_read"].lay(0x4000, body)
	good := at["libssl3 3.0.22-1~deb12u2 SSL_read_ex"].lay(0x5000, body)
	for name, change := range map[string][2]string{
		"an argument is another":       {"4883ec08", "4889fe90"}, // mov rsi, rdi
		"the result is not its own":    {"85c0", "31c0"},         // xor eax, eax
		"what is below zero stays":     {"0f48c2", "0f49c2"},     // cmovns
		"another register is its zero": {"31d285c0", "31c985c0"},
	} {
		s := hex.EncodeToString(good.code)
		if !strings.Contains(s, change[0]) {
			t.Fatalf("%s: %s is not in %s", name, change[0], s)
		}
		code, err := hex.DecodeString(strings.Replace(s, change[0], change[1], 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, found := behind(plain, door{good.start, code}); found {
			t.Errorf("%s: found all the same", name)
		}
	}
}

// TestBehindHere: this machine's libssl, whatever it is, is tapped at what is emulated,
// once for each call.
func TestBehindHere(t *testing.T) {
	f, err := os.Open("/usr/lib/x86_64-linux-gnu/libssl.so.3")
	if err != nil {
		t.Skip("no libssl.so.3 here:", err)
	}
	defer f.Close()
	target, err := findTarget(f)
	if err != nil {
		t.Fatal(err)
	}
	sites := make(map[string]int)
	for _, h := range target.hooks {
		for _, s := range h.sites {
			for name := range strings.SplitSeq(s.name, ", ") {
				sites[name]++
			}
		}
	}
	for _, name := range []string{"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"} {
		if sites[name] != 2 {
			t.Errorf("%s is hooked %d times, want its entry and its return", name, sites[name])
		}
	}
}

// FuzzBehind: whatever the code, looking for what is behind it comes to an end.
func FuzzBehind(f *testing.F) {
	for _, fn := range realFunctions(f) {
		f.Add(fn.code, fn.code)
	}
	f.Fuzz(func(t *testing.T, plain, ex []byte) {
		behind(door{0x1000, plain}, door{0x2000, ex})
	})
}
