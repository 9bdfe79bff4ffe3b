// Package programs installs published programs that carry a stripped TLS library
// inside, as npm has them, and runs each for one streamed call with a long prompt.
package programs

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program is one published version of a program.
type Program struct {
	Name    string // bun, deno, claude, opencode, codex
	Version string
	Library string // the TLS library inside, as capture sources name it

	pack   string // npm's name for it, with the version
	path   string // of the executable, or of what is loaded, in the package
	sha256 string // of the same
}

func (p Program) String() string { return p.Name + " " + p.Version }

// Published are all programs, each in two versions.
var Published = []Program{
	{"bun", "1.4.5", "boringssl", "@oven/bun-linux-x64@1.4.5", "bin/bun",
		"f05d28a3862f4b84395c7fa32480b835dd47482e80b7e7a49a115227f0c06083"},
	{"bun", "1.3.14", "boringssl", "@oven/bun-linux-x64@1.3.14", "bin/bun",
		"9fd36f87e4b90b07632b987a2e4ec81ca15a62c81bf983190cea6d715be2ad74"},
	{"claude", "2.1.331", "boringssl", "@anthropic-ai/claude-code-linux-x64@2.1.331", "claude",
		"4c00839cf46beb2b38ec310105f2d538f7f9321fe46c636299b74bcab94626b1"},
	{"claude", "2.1.197", "boringssl", "@anthropic-ai/claude-code-linux-x64@2.1.197", "claude",
		"f54e69cbc89b2da61a415700af7ff52a147e862517d4f1b0eecf768448cf7f83"},
	{"opencode", "1.18.34", "boringssl", "opencode-linux-x64@1.18.34", "bin/opencode",
		"9ca0b9953d49997601655e54f846a3efa464f237e47c6f1b04716d0f2e64c4c2"},
	{"opencode", "1.14.48", "boringssl", "opencode-linux-x64@1.14.48", "bin/opencode",
		"8732bd22e724fc19055e0e2800b763dbe9efc1e9ca004dc2f8836a9c124303b7"},
	{"deno", "2.9.6", "aws-lc", "@deno/linux-x64-glibc@2.9.6", "deno",
		"bceb5b6a6239b0b010418406d8c77a508f67cf4337d94288f1c19fe71304aab0"},
	{"deno", "2.7.13", "aws-lc", "@deno/linux-x64-glibc@2.7.13", "deno",
		"e7bd98650044c1ce4f5a6c1f28cdd0f21711a17cc95613304d6c870f803b11d9"},
	{"codex", "0.169.0", "aws-lc", "@openai/codex@0.169.0-linux-x64", "vendor/x86_64-unknown-linux-musl/bin/codex",
		"b452ca20f838a8855a88a41050ee4a694033fff4ea3ecdad5633e6e0e8d13f2b"},
	{"codex", "0.142.3", "aws-lc", "@openai/codex@0.142.3-linux-x64", "vendor/x86_64-unknown-linux-musl/bin/codex",
		"cb1670c25b6e17fd82866a80e55df58bc10f5d18e44d25ec2c6f7c2ab98077cd"},
}

// Addon is BAML's runtime, an LLM client in Rust that node loads, its symbols kept.
var Addon = Program{"baml", "0.226.2", "ring", "@boundaryml/baml-linux-x64-gnu@0.226.2", "baml.linux-x64-gnu.node",
	"89ad481128bd0c50123985d8bfca22cdc14bfd750339dd68d38d77f743577b9d"}

// Installed is a program on this machine.
type Installed struct {
	Program
	Path string // of the executable
}

// Install downloads a program with npm into dir, unless it is there, and holds its
// executable to the sum it is known by.
func (p Program) Install(ctx context.Context, dir string) (*Installed, error) {
	home := filepath.Join(dir, p.Name+"-"+p.Version)
	in := &Installed{p, filepath.Join(home, filepath.FromSlash(p.path))}
	done := filepath.Join(home, "installed")
	if sum, err := os.ReadFile(done); err == nil && string(sum) == p.sha256 {
		return in, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", home, p.pack)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("download %s: %w\n%s", p.pack, err, out)
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 {
		return nil, fmt.Errorf("download %s: npm names no file", p.pack)
	}
	archive := filepath.Join(home, lines[len(lines)-1])
	defer os.Remove(archive)
	if err := unpack(archive, home); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", p.pack, err)
	}
	sum, err := sumOf(in.Path)
	if err != nil {
		return nil, err
	}
	if sum != p.sha256 {
		return nil, fmt.Errorf("%s: its executable has the sum %s, want %s", p.pack, sum, p.sha256)
	}
	return in, os.WriteFile(done, []byte(sum), 0o644)
}

// unpack writes the regular files of an npm package below dir.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, "package/")
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := write(root, name, r, h.FileInfo().Mode().Perm()); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

//go:embed stream.mjs
var script []byte

//go:embed baml.cjs
var addonScript []byte

// Idle is the program doing something that makes no call and soon ends: what maps its
// file for the first time.
func (in *Installed) Idle(ctx context.Context) *exec.Cmd {
	switch in.Name {
	case "rust":
		return exec.CommandContext(ctx, "sh", "-c", `"$0" || true`, in.Path) // it asks for arguments
	case "baml":
		return exec.CommandContext(ctx, "node", "-e", "require(process.argv[1])", in.Path)
	}
	return exec.CommandContext(ctx, in.Path, "--version")
}

// Call is the program making one streamed call, with a prompt of that many bytes, to
// the provider at url, whose CA is a PEM file. home is an empty folder of its own.
func (in *Installed) Call(ctx context.Context, home, url, ca string, prompt int) (*exec.Cmd, error) {
	text := strings.Repeat("How long is a piece of string? ", prompt/31+1)
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + home, "NODE_EXTRA_CA_CERTS=" + ca}
	var cmd *exec.Cmd
	switch in.Name {
	case "bun", "deno":
		file := filepath.Join(home, "stream.mjs")
		if err := os.WriteFile(file, script, 0o644); err != nil {
			return nil, err
		}
		args := []string{"run", file, url, fmt.Sprint(prompt)}
		if in.Name == "deno" {
			args = append([]string{"run", "--allow-all"}, args[1:]...)
			env = append(env, "DENO_CERT="+ca, "DENO_NO_UPDATE_CHECK=1")
		}
		cmd = exec.CommandContext(ctx, in.Path, args...)
	case "rust":
		url = strings.Replace(url, "127.0.0.1", "localhost", 1) // rustls 0.20 knows no addresses
		cmd = exec.CommandContext(ctx, in.Path, url, ca, fmt.Sprint(prompt))
	case "baml":
		file := filepath.Join(home, "baml.cjs")
		if err := os.WriteFile(file, addonScript, 0o644); err != nil {
			return nil, err
		}
		env = append(env, "DANGER_ACCEPT_INVALID_CERTS=1", "BAML_LOG=off") // it takes no CA
		cmd = exec.CommandContext(ctx, "node", file, in.Path, url, fmt.Sprint(prompt))
	case "claude":
		env = append(env, "ANTHROPIC_BASE_URL="+url, "ANTHROPIC_API_KEY=sk-ant-test", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1")
		cmd = exec.CommandContext(ctx, in.Path, "-p", "--model", "claude-sonnet-4-5")
		cmd.Stdin = strings.NewReader(text)
	case "opencode":
		provider := map[string]any{
			"npm": "@ai-sdk/openai-compatible", "name": "sim",
			"options": map[string]string{"baseURL": url + "/v1", "apiKey": "sk-test"},
			"models":  map[string]any{"gpt-4o-mini": map[string]string{"name": "gpt-4o-mini"}},
		}
		config, err := json.Marshal(map[string]any{"autoupdate": false, "share": "disabled", "provider": map[string]any{"sim": provider}})
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(home, "opencode.json"), config, 0o644); err != nil {
			return nil, err
		}
		env = append(env, "OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_MODELS_FETCH=1")
		// With a title of ours it asks the model for none.
		cmd = exec.CommandContext(ctx, in.Path, "run", "--model", "sim/gpt-4o-mini", "--title", "strings", text)
	case "codex":
		config := fmt.Sprintf("model = \"gpt-4o-mini\"\nmodel_provider = \"sim\"\n[model_providers.sim]\nname = \"sim\"\nbase_url = %q\nwire_api = \"responses\"\nenv_key = \"SIM_KEY\"\n", url+"/v1")
		if err := os.Mkdir(filepath.Join(home, ".codex"), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(home, ".codex", "config.toml"), []byte(config), 0o644); err != nil {
			return nil, err
		}
		env = append(env, "SIM_KEY=sk-test", "SSL_CERT_FILE="+ca, "CODEX_CA_CERTIFICATE="+ca)
		cmd = exec.CommandContext(ctx, in.Path, "exec", "--skip-git-repo-check", "-")
		cmd.Stdin = strings.NewReader(text)
	default:
		return nil, fmt.Errorf("no way to call %s", in.Name)
	}
	cmd.Dir, cmd.Env = home, env
	return cmd, nil
}

// Cache is the folder outside of the checkout in which programs are kept.
func Cache() (string, error) {
	if dir := os.Getenv("TOLLWIRE_CACHE"); dir != "" {
		return filepath.Join(dir, "programs"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	return filepath.Join(dir, "tollwire", "programs"), nil
}
