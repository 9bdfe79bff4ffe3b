package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tollwire/tollwire/internal/trial"
)

// place is where a program makes its calls.
type place struct {
	url  string // https://localhost:port
	port string
	ca   string // PEM file
	home string // an empty folder of the run's own
}

// program is one client as its users have it.
type program struct {
	name    string
	tls     string   // the TLS stack it carries, and how
	library []string // capture sources that may see it
	unseen  string   // the reason why it is not: the stack's name in `tollwire check`; empty: it must be seen
	debian  []string // packages
	// install makes the program ready in a folder that is kept, and returns its path.
	install func(ctx context.Context, dir string) (path string, err error)
	version []string // a command that tells; "{}" stands for the program's
	command func(path string, at place) (*exec.Cmd, error)
	// tapped returns once the agent has looked through the program, where that takes it
	// seconds: its first call is then no test of anything. nil: the first call counts.
	tapped func(context.Context, *trial.Agent) error
}

// script is a program that an interpreter runs.
func script(interpreter, text, suffix string, env ...string) func(string, place) (*exec.Cmd, error) {
	return func(path string, at place) (*exec.Cmd, error) {
		file := filepath.Join(at.home, "client"+suffix)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
		cmd := exec.Command(interpreter, file, at.url)
		cmd.Env = append(environ(at), env...)
		return cmd, nil
	}
}

// environ is what every program gets: nothing of the caller's but the path, and the
// private CA by all the names that programs know it by.
func environ(at place) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + at.home, "LANG=C.UTF-8", "NODE_NO_WARNINGS=1"}
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PERL_LWP_SSL_CA_FILE", "DENO_CERT", "CODEX_CA_CERTIFICATE", "CURL_CA_BUNDLE"} {
		env = append(env, name+"="+at.ca)
	}
	return env
}

// ready is a program that can be run here.
type ready struct {
	*program
	path  string
	says  string // its version
	wrong error  // why it cannot be run
}

// install gets every program, Debian's in one go. What cannot be had is no error: it
// is not listed as working.
func install(ctx context.Context, all []*program, cache string) (list []*ready, err error) {
	var packages []string
	for _, p := range all {
		packages = append(packages, p.debian...)
	}
	if err := debian(ctx, packages); err != nil {
		return nil, err
	}
	for _, p := range all {
		fmt.Printf("coverage: preparing %s\n", p.name)
		r := &ready{program: p, path: p.name}
		if p.install != nil {
			r.path, r.wrong = p.install(ctx, cache)
		}
		if r.wrong == nil {
			r.says, r.wrong = ask(ctx, p.version, r.path)
		}
		if r.wrong != nil {
			fmt.Printf("coverage: %s cannot be run here: %v\n", p.name, r.wrong)
		}
		list = append(list, r)
	}
	return list, ctx.Err()
}

// debian installs packages that are missing.
func debian(ctx context.Context, packages []string) error {
	var missing []string
	for _, p := range packages {
		out, _ := exec.CommandContext(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Status}", p).Output()
		if string(out) != "installed" {
			missing = append(missing, p)
		}
	}
	if missing == nil {
		return nil
	}
	fmt.Printf("coverage: installing %s\n", strings.Join(missing, " "))
	install := "apt-get update >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if out, err := exec.CommandContext(ctx, "sh", "-c", install).CombinedOutput(); err != nil {
		return fmt.Errorf("install packages: %w\n%s", err, out)
	}
	return nil
}

var digits = regexp.MustCompile(`\d+\.\d+[\w.+-]*`)

// ask runs a command and takes the first version that it prints.
func ask(ctx context.Context, command []string, path string) (string, error) {
	if len(command) == 0 {
		return "", errors.New("no command tells its version")
	}
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = strings.ReplaceAll(a, "{}", path)
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	v := digits.FindString(string(out))
	if v == "" {
		return "", fmt.Errorf("%s: tells no version: %w", strings.Join(args, " "), err)
	}
	return v, nil
}
