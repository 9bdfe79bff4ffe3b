// Command ciphertap has published programs with stripped TLS inside call the provider
// simulator, four at once, and holds what the agent saw of it to the simulator's
// ledger. It needs root, npm and, the first time, the network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tollwire/tollwire/internal/programs"
	"github.com/tollwire/tollwire/internal/trial"
)

func main() {
	only := flag.String("only", "", "programs to run, by name or name-version, separated by commas; default all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	ok, err := run(ctx, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ciphertap:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

const atOnce = 4

func run(ctx context.Context, only string) (ok bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("probes need root; run it by make test-cipher-tap")
	}
	cache, err := programs.Cache()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "tollwire-ciphertap-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	bin := filepath.Dir(exe)
	var all []*programs.Installed
	for _, p := range append(slices.Clip(programs.Published), programs.Addon) {
		if !wanted(p, only) {
			continue
		}
		in, err := p.Install(ctx, cache)
		if err != nil {
			return false, err
		}
		all = append(all, in)
	}
	llm, err := trial.StartSim(filepath.Join(bin, "llmsim"), filepath.Join(dir, "sim"))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, llm.Stop(syscall.SIGTERM)) }()
	agent, err := trial.StartAgent(ctx, filepath.Join(bin, "tollwire"), dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, agent.Stop(syscall.SIGTERM)) }()
	var tapped, calls, exact int
	var wrong []string
	for _, in := range all {
		began := time.Now()
		out, err := in.Try(ctx, agent, llm, atOnce)
		if err != nil {
			return false, err
		}
		if out.Tapped {
			tapped++
		}
		calls, exact, wrong = calls+out.Calls, exact+out.Exact, append(wrong, out.Wrong...)
		fmt.Printf("%-18v aead.%-10s %d calls, %d exact, %v\n", in, in.Library, out.Calls, out.Exact, time.Since(began).Round(100*time.Millisecond))
		for _, w := range out.Wrong {
			fmt.Println("  ", strings.ReplaceAll(w, "\n", "\n   "))
		}
	}
	if only == "" {
		bad, err := others(ctx, agent, all, bin, dir)
		if err != nil {
			return false, err
		}
		wrong = append(wrong, bad...)
	}
	m, err := agent.Scrape(ctx)
	if err != nil {
		return false, err
	}
	for _, source := range []string{"aead.boringssl", "aead.aws-lc"} {
		if lost := m.Sum("tollwire_capture_bytes_total", "source", source, "fate", "dropped"); lost != 0 {
			wrong = append(wrong, "lost")
			fmt.Printf("%s: %.0f bytes dropped\n", source, lost)
		}
	}
	fmt.Printf("cipher tap: %d binaries, %d matched, %d calls, %d exact\n", len(all), tapped, calls, exact)
	return len(wrong) == 0 && len(all) > 0 && tapped == len(all) && exact == calls, nil
}

// variant is a way to encrypt that this machine's CPU or this server would not choose.
type variant struct {
	name    string
	program string
	env     string   // hides parts of the CPU from BoringSSL
	server  []string // llmsim's flags
	cipher  string
}

const (
	chacha12 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
	gcm12    = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
)

// The bits are those of OPENSSL_ia32cap(3): of CPUID 1 VEX 60 and AES-NI 57, of CPUID 7
// VPCLMULQDQ 42, VAES 41, AVX2 5. Without AES-NI a client prefers ChaCha20.
var variants = []variant{
	{"AES-NI with AVX", "bun", "OPENSSL_ia32cap=~0x0:~0x60000000000", nil, "TLS_AES_128_GCM_SHA256"},
	{"AES-NI without AVX", "bun", "OPENSSL_ia32cap=~0x1000000000000000:~0x60000000020", nil, "TLS_AES_128_GCM_SHA256"},
	{"ChaCha20 with AVX2", "bun", "OPENSSL_ia32cap=~0x200000000000000:~0x0", nil, "TLS_CHACHA20_POLY1305_SHA256"},
	{"ChaCha20 with SSE4.1", "bun", "OPENSSL_ia32cap=~0x200000000000000:~0x20", nil, "TLS_CHACHA20_POLY1305_SHA256"},
	{"TLS 1.2, AES-GCM", "bun", "", []string{"--tls-max", "1.2", "--ciphers", gcm12}, gcm12},
	{"TLS 1.2, ChaCha20", "bun", "", []string{"--tls-max", "1.2", "--ciphers", chacha12}, chacha12},
	{"TLS 1.2, AES-GCM", "deno", "", []string{"--tls-max", "1.2", "--ciphers", gcm12}, gcm12},
	{"TLS 1.2, ChaCha20", "deno", "", []string{"--tls-max", "1.2", "--ciphers", chacha12}, chacha12},
}

// others runs the variants, and returns what was wrong.
func others(ctx context.Context, agent *trial.Agent, all []*programs.Installed, bin, dir string) (wrong []string, err error) {
	for i, v := range variants {
		at := slices.IndexFunc(all, func(in *programs.Installed) bool { return in.Name == v.program })
		llm, err := trial.StartSim(filepath.Join(bin, "llmsim"), filepath.Join(dir, fmt.Sprint("variant", i)), v.server...)
		if err != nil {
			return nil, err
		}
		var env []string
		if v.env != "" {
			env = append(env, v.env)
		}
		out, err := all[at].Try(ctx, agent, llm, atOnce, env...)
		if err := errors.Join(err, llm.Stop(syscall.SIGTERM)); err != nil {
			return nil, err
		}
		if !slices.Equal(out.Ciphers, []string{v.cipher}) {
			out.Wrong = append(out.Wrong, fmt.Sprintf("ciphers %v, want %s", out.Ciphers, v.cipher))
		}
		fmt.Printf("%-18v aead.%-10s %d calls, %d exact: %s\n", all[at], all[at].Library, out.Calls, out.Exact, v.name)
		for _, w := range out.Wrong {
			fmt.Println("  ", strings.ReplaceAll(w, "\n", "\n   "))
		}
		wrong = append(wrong, out.Wrong...)
	}
	return wrong, nil
}

func wanted(p programs.Program, only string) bool {
	for name := range strings.SplitSeq(only, ",") {
		if name == "" || name == p.Name || name == p.Name+"-"+p.Version {
			return true
		}
	}
	return false
}
