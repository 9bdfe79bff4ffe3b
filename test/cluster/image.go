//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// clientImage is the image of all client pods and of their sandboxes.
const clientImage = "tollwire.local/clients:1"

// clientPrograms are taken as they are on this machine, with the libraries that they load.
var clientPrograms = []string{"/usr/bin/curl", "/usr/bin/python3", "/bin/sh", "/bin/sleep"}

// writeClientImage writes a docker archive of this machine's own curl and python.
func writeClientImage(path string) error {
	files := make(map[string]bool)
	for _, p := range clientPrograms {
		if err := addProgram(files, p); err != nil {
			return err
		}
	}
	if err := addPython(files); err != nil {
		return err
	}
	var layer bytes.Buffer
	if err := writeLayer(&layer, files); err != nil {
		return err
	}
	digest := hash(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"sleep", "infinity"}, "Env": []string{"PATH=/usr/bin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": hash(config) + ".json", "RepoTags": []string{clientImage}, "Layers": []string{digest + ".tar"},
	}})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	t := tar.NewWriter(f)
	for _, part := range []struct {
		name string
		data []byte
	}{{hash(config) + ".json", config}, {digest + ".tar", layer.Bytes()}, {"manifest.json", manifest}} {
		err = errors.Join(err, t.WriteHeader(&tar.Header{Name: part.name, Mode: 0o644, Size: int64(len(part.data))}))
		_, werr := t.Write(part.data)
		err = errors.Join(err, werr)
	}
	return errors.Join(err, t.Close(), f.Close())
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// addProgram adds a program and its libraries, under the paths by which they are asked for.
func addProgram(files map[string]bool, path string) error {
	files[path] = true
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not a dynamic executable")) && !bytes.Contains(out, []byte("statically linked")) {
		return fmt.Errorf("libraries of %s: %w\n%s", path, err, out)
	}
	for _, m := range library.FindAllSubmatch(out, -1) {
		files[string(m[1])] = true
	}
	return nil
}

var library = regexp.MustCompile(`(?m)(?:=> |^\s+)(/\S+)`)

// addPython adds the standard library, less what no client needs.
func addPython(files map[string]bool) error {
	out, err := exec.Command("/usr/bin/python3", "-c", "import os; print(os.path.dirname(os.__file__))").Output()
	if err != nil {
		return fmt.Errorf("find python's library: %w", err)
	}
	return filepath.WalkDir(strings.TrimSpace(string(out)), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "__pycache__", "dist-packages"}, d.Name()):
			return fs.SkipDir
		case d.IsDir() || strings.HasPrefix(d.Name(), "config-"):
			return nil
		case strings.HasSuffix(path, ".so"):
			return addProgram(files, path)
		}
		files[path] = true
		return nil
	})
}

// writeLayer writes each file's content under the path asked for; links are followed.
func writeLayer(w io.Writer, files map[string]bool) error {
	t := tar.NewWriter(w)
	paths := make([]string, 0, len(files))
	for p := range files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		info, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // a dangling link in a distribution's own folder
		}
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: strings.TrimPrefix(p, "/"), Mode: int64(info.Mode().Perm()), Size: int64(len(data))}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	return t.Close()
}
