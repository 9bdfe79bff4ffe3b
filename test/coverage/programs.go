package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tollwire/tollwire/internal/clients/sdks"
	"github.com/tollwire/tollwire/internal/programs"
	"github.com/tollwire/tollwire/internal/trial"
)

//go:embed scripts/client.py
var python string

//go:embed scripts/client.mjs
var node string

//go:embed scripts/client.rb
var ruby string

//go:embed scripts/client.php
var php string

//go:embed scripts/client.pl
var perl string

//go:embed scripts/Client.java
var java string

const (
	path = "/v1/chat/completions"
	body = `{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`
)

// request is the call for programs that are handed raw HTTP.
var request = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)

// table is every program, by stack.
func table() []*program {
	openssl := []string{"openssl"}
	all := []*program{
		{name: "curl", tls: "OpenSSL, libssl.so.3", library: openssl, debian: []string{"curl"}, version: []string{"curl", "--version"},
			command: func(_ string, at place) (*exec.Cmd, error) {
				return with(at, "curl", "-sN", "--cacert", at.ca, "-H", "Content-Type: application/json", "-d", body, at.url+path), nil
			}},
		pythonModule("urllib"), pythonModule("requests"), pythonModule("httpx"), pythonModule("aiohttp"),
		{name: "node", tls: "OpenSSL, linked in", library: openssl, version: []string{"node", "--version"}, command: script("node", node, ".mjs")},
		{name: "nodejs (Debian)", tls: "OpenSSL, libnode → libssl.so.3", library: openssl, install: debianNode, debian: []string{"node-acorn", "node-cjs-module-lexer", "node-undici"},
			version: []string{"env", "LD_LIBRARY_PATH={}/usr/lib/x86_64-linux-gnu", "{}/usr/bin/node", "--version"},
			command: func(path string, at place) (*exec.Cmd, error) {
				cmd, err := script(filepath.Join(path, "usr/bin/node"), node, ".mjs", "LD_LIBRARY_PATH="+filepath.Join(path, "usr/lib/x86_64-linux-gnu"))("", at)
				return cmd, err
			}},
		{name: "ruby", tls: "OpenSSL, libssl.so.3", library: openssl, debian: []string{"ruby"}, version: []string{"ruby", "--version"}, command: script("ruby", ruby, ".rb")},
		{name: "php", tls: "OpenSSL, libssl.so.3", library: openssl, debian: []string{"php-cli"}, version: []string{"php", "--version"}, command: script("php", php, ".php")},
		{name: "perl", tls: "OpenSSL, libssl.so.3", library: openssl, debian: []string{"libwww-perl", "libio-socket-ssl-perl", "liblwp-protocol-https-perl"}, version: []string{"perl", "--version"}, command: script("perl", perl, ".pl")},
		nodeSDK("openai", "openai chat"), nodeSDK("@anthropic-ai/sdk", "anthropic messages"), nodeSDK("@google/genai", "google genai"),
		{name: "gemini-cli", tls: "OpenSSL, node's", library: openssl, install: npm("@google/gemini-cli", "0.61.0"),
			version: []string{"node", "{}/node_modules/@google/gemini-cli/bundle/gemini.js", "--version"},
			command: func(path string, at place) (*exec.Cmd, error) {
				cmd := with(at, "node", filepath.Join(path, "node_modules/@google/gemini-cli/bundle/gemini.js"), "--skip-trust", "-m", "gemini-2.5-flash", "-p", "say hi")
				settings := filepath.Join(at.home, ".gemini", "settings.json")
				if err := errors.Join(os.Mkdir(filepath.Dir(settings), 0o755),
					os.WriteFile(settings, []byte(`{"security":{"auth":{"selectedType":"gemini-api-key"}}}`), 0o644)); err != nil {
					return nil, err
				}
				cmd.Env = append(cmd.Env, "GOOGLE_GEMINI_BASE_URL="+at.url, "GEMINI_API_KEY=k")
				return cmd, nil
			}},
		goSDK("openai-go", "openai-go chat"), goSDK("anthropic-sdk-go", "anthropic-sdk-go"), goSDK("genai (Go)", "genai-go"),
		{name: "wget", tls: "GnuTLS, libgnutls.so.30", library: []string{"gnutls"}, debian: []string{"wget"}, version: []string{"wget", "--version"},
			command: func(_ string, at place) (*exec.Cmd, error) {
				return with(at, "wget", "-qO-", "--ca-certificate="+at.ca, "--header=Content-Type: application/json", "--post-data="+body, at.url+path), nil
			}},
		{name: "gnutls-cli", tls: "GnuTLS, libgnutls.so.30", library: []string{"gnutls"}, debian: []string{"gnutls-bin"}, version: []string{"gnutls-cli", "--version"},
			command: func(_ string, at place) (*exec.Cmd, error) {
				// It ends with its input, so that is kept open for as long as the answer takes.
				return with(at, "sh", "-c", `(cat "$1"; sleep 2) | gnutls-cli --logfile=/dev/null --x509cafile="$2" --port="$3" localhost`, "sh", request1(at), at.ca, at.port), nil
			}},
		{name: "tstclnt", tls: "NSS, libssl3.so", library: []string{"nss"}, debian: []string{"libnss3-tools"}, version: []string{"dpkg-query", "-W", "-f=${Version}", "libnss3-tools"},
			command: func(_ string, at place) (*exec.Cmd, error) {
				// It takes the first address of a name alone, and no CA from a PEM file.
				const run = `(cat "$1"; sleep 2) | timeout 4 tstclnt -4 -D -o -h localhost -p "$2" -V tls1.2:tls1.3 || [ $? = 124 ]`
				return with(at, "sh", "-c", run, "sh", request1(at), at.port), nil
			}},
		{name: "java", tls: "JSSE, no native code", unseen: "java", version: []string{"java", "-version"},
			command: func(_ string, at place) (*exec.Cmd, error) {
				file := filepath.Join(at.home, "Client.java")
				if err := os.WriteFile(file, []byte(java), 0o644); err != nil {
					return nil, err
				}
				const run = `keytool -importcert -noprompt -storepass changeit -keystore trust.jks -file "$1" 2>/dev/null && java -Djavax.net.ssl.trustStore=trust.jks -Djavax.net.ssl.trustStorePassword=changeit "$2" "$3"`
				return with(at, "sh", "-c", run, "sh", at.ca, file, at.url+path), nil
			}},
	}
	named := make(map[string]bool)
	for _, p := range programs.Published { // the newest version of each stands first
		if !named[p.Name] {
			named[p.Name] = true
			all = append(all, cipherTapped(p, p.Library+", stripped", p.Install))
		}
	}
	return append(all, cipherTapped(programs.RustClient, "rustls and ring, linked in", programs.BuildRust))
}

// cipherTapped is a program whose TLS library has no function that is read by its name.
func cipherTapped(p programs.Program, tls string, install func(context.Context, string) (*programs.Installed, error)) *program {
	var in *programs.Installed
	return &program{name: p.Name, tls: tls, library: []string{"aead." + p.Library},
		install: func(ctx context.Context, cache string) (path string, err error) {
			if in, err = install(ctx, filepath.Join(cache, "programs")); err != nil {
				return "", err
			}
			return in.Path, nil
		},
		version: []string{"echo", p.Version},
		command: func(_ string, at place) (*exec.Cmd, error) {
			return in.Call(context.Background(), at.home, at.url, at.ca, 72_000)
		},
		tapped: func(ctx context.Context, agent *trial.Agent) error { return in.Tap(ctx, agent) },
	}
}

func with(at place, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = environ(at)
	return cmd
}

// request1 is the raw request as a file.
func request1(at place) string {
	file := filepath.Join(at.home, "request")
	_ = os.WriteFile(file, []byte(request), 0o644) // what cannot be read makes no call
	return file
}

func pythonModule(name string) *program {
	p := &program{name: "python " + name, tls: "OpenSSL, libssl.so.3", library: []string{"openssl"}, debian: []string{"python3"}}
	p.version = []string{"/usr/bin/python3", "--version"}
	if name != "urllib" {
		p.debian = append(p.debian, "python3-"+name)
		p.version = []string{"/usr/bin/python3", "-c", "import " + name + " as m; print(m.__version__)"}
	}
	p.command = func(_ string, at place) (*exec.Cmd, error) {
		cmd, err := script("/usr/bin/python3", python, ".py")("", at)
		if err == nil {
			cmd.Args = append(cmd.Args, name)
		}
		return cmd, err
	}
	return p
}

func nodeSDK(name, stream string) *program {
	return &program{name: name + " (node)", tls: "OpenSSL, node's", library: []string{"openssl"},
		install: func(ctx context.Context, cache string) (string, error) {
			s, err := sdks.Node(ctx, filepath.Join(cache, "clients"))
			if err != nil {
				return "", err
			}
			return s.Dir, nil
		},
		version: []string{"node", "-p", "JSON.parse(require('fs').readFileSync('{}/node_modules/" + name + "/package.json')).version"},
		command: func(dir string, at place) (*exec.Cmd, error) {
			return with(at, "node", filepath.Join(dir, "streams.mjs"), at.url, stream), nil
		}}
}

func goSDK(name, stream string) *program {
	return &program{name: name, tls: "Go crypto/tls", library: []string{"gotls"},
		install: func(ctx context.Context, cache string) (string, error) {
			s, err := sdks.Go(ctx, filepath.Join(cache, "clients"))
			if err != nil {
				return "", err
			}
			return s.Dir, nil
		},
		version: []string{"sh", "-c", "go version -m {}/streams | grep -E '" + map[string]string{"openai-go": "openai/openai-go", "anthropic-sdk-go": "anthropics/", "genai (Go)": "org/genai"}[name] + "'"},
		command: func(dir string, at place) (*exec.Cmd, error) {
			return with(at, filepath.Join(dir, "streams"), at.url, stream), nil
		}}
}

// npm installs one version of a package.
func npm(name, version string) func(context.Context, string) (string, error) {
	return func(ctx context.Context, cache string) (string, error) {
		dir := filepath.Join(cache, "programs", strings.ReplaceAll(strings.TrimPrefix(name, "@"), "/", "-")+"-"+version)
		done := filepath.Join(dir, "installed")
		if _, err := os.Stat(done); err == nil {
			return dir, nil
		}
		out, err := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", dir, name+"@"+version).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("install %s: %w\n%s", name, err, out)
		}
		return dir, os.WriteFile(done, nil, 0o644)
	}
}

// debianNode unpacks Debian's own nodejs with what it is linked to: installed, it would
// stand in place of the machine's.
func debianNode(ctx context.Context, cache string) (string, error) {
	dir := filepath.Join(cache, "programs", "debian-nodejs")
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	const get = `set -e
v=$(apt-cache madison nodejs | awk '$3 ~ /dfsg/ {print $3; exit}')
[ -n "$v" ] || { echo "Debian's nodejs is not on offer"; exit 1; }
apt-get download "nodejs=$v" $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "libnode108=$v" 2>/dev/null | grep -E '^(libnode108|libuv1|libcares2|libc-ares2|libnghttp2-14|libicu72|libbrotli1)$' | sort -u) >/dev/null 2>&1
for f in *.deb; do dpkg -x "$f" .; done
rm -f *.deb`
	cmd := exec.CommandContext(ctx, "sh", "-c", get)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack Debian's nodejs: %w: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/node")); err != nil {
		return "", errors.New("Debian's nodejs has no usr/bin/node")
	}
	return dir, os.WriteFile(done, nil, 0o644)
}
