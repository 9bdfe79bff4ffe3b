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
	only := flag.String("only", "", "programs to run, by name or name-version, and variants, separated by commas; default all")
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
	for _, p := range programs.Published {
		if !wanted(p, only) {
			continue
		}
		in, err := p.Install(ctx, cache)
		if err != nil {
			return false, err
		}
		all = append(all, in)
	}
	var ringed []*programs.Installed
	if wanted(programs.Addon, only) {
		in, err := programs.Addon.Install(ctx, cache)
		if err != nil {
			return false, err
		}
		ringed = append(ringed, in)
	}
	if wanted(programs.RustClient, only) {
		in, err := programs.BuildRust(ctx, cache)
		if err != nil {
			return false, err
		}
		ringed = append(ringed, in)
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
	for _, in := range append(slices.Clip(all), ringed...) {
		out, err := in.Try(ctx, agent, llm, atOnce)
		if err != nil {
			return false, err
		}
		wrong = append(wrong, report(in, out, "")...)
		if in.Library == "ring" { // one version each
			continue
		}
		if out.Tapped {
			tapped++
		}
		calls, exact = calls+out.Calls, exact+out.Exact
	}
	if only == "" || strings.Contains(only, "variants") {
		bad, err := others(ctx, agent, append(slices.Clip(all), ringed...), bin, dir)
		if err != nil {
			return false, err
		}
		wrong = append(wrong, bad...)
	}
	m, err := agent.Scrape(ctx)
	if err != nil {
		return false, err
	}
	for _, source := range []string{"aead.boringssl", "aead.aws-lc", "aead.ring"} {
		if lost := m.Sum("tollwire_capture_bytes_total", "source", source, "fate", "dropped"); lost != 0 {
			wrong = append(wrong, "lost")
			fmt.Printf("%s: %.0f bytes dropped\n", source, lost)
		}
	}
	fmt.Printf("cipher tap: %d binaries, %d matched, %d calls, %d exact\n", len(all), tapped, calls, exact)
	return len(wrong) == 0 && len(all)+len(ringed) > 0 && tapped == len(all) && exact == calls, nil
}

// maxLate bounds the median of how late first content is seen, as for any other tap:
// the machine is busy with four programs at once.
const maxLate = 20 * time.Millisecond

// report prints how a program's calls were seen, and returns what was wrong.
func report(in *programs.Installed, out *programs.Outcome, how string) []string {
	late, _ := out.Late.Quantile(0.5)
	if late > maxLate {
		out.Wrong = append(out.Wrong, fmt.Sprintf("first content is off by %v, want at most %v", late, maxLate))
	}
	fmt.Printf("%-18v aead.%-10s %d calls, %d exact, first content within %v%s\n", in, in.Library, out.Calls, out.Exact, late.Round(10*time.Microsecond), how)
	for _, w := range out.Wrong {
		fmt.Println("  ", strings.ReplaceAll(w, "\n", "\n   "))
	}
	return out.Wrong
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
	{"TLS 1.2, AES-GCM", "baml", "", []string{"--tls-max", "1.2", "--ciphers", gcm12}, gcm12},
	{"TLS 1.2, ChaCha20", "baml", "", []string{"--tls-max", "1.2", "--ciphers", chacha12}, chacha12},
	{"TLS 1.2, AES-GCM", "rust", "", []string{"--tls-max", "1.2", "--ciphers", gcm12}, gcm12},
	{"TLS 1.2, ChaCha20", "rust", "", []string{"--tls-max", "1.2", "--ciphers", chacha12}, chacha12},
}

// others runs the variants, and returns what was wrong.
func others(ctx context.Context, agent *trial.Agent, all []*programs.Installed, bin, dir string) (wrong []string, err error) {
	for i, v := range variants {
		at := slices.IndexFunc(all, func(in *programs.Installed) bool { return in.Name == v.program })
		if at < 0 { // it was not asked for
			continue
		}
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
		wrong = append(wrong, report(all[at], out, ": "+v.name)...)
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
