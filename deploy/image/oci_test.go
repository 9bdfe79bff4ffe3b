package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testImages(t *testing.T, arches ...string) []image {
	t.Helper()
	dir := t.TempDir()
	var all []image
	for _, a := range arches {
		p := filepath.Join(dir, a)
		if err := os.WriteFile(p, []byte("program of "+a), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, image{arch: a, files: []file{{"usr/bin/tollwire", 0o755, p}, {"etc/ssl/x", 0o644, p}}, entrypoint: []string{"tollwire"}, command: []string{"run"}})
	}
	return all
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.ModTime.Unix() > 0 {
			t.Errorf("%s: uid %d, time %v", h.Name, h.Uid, h.ModTime)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = b
	}
}

// fetch follows a descriptor, and checks digest and size.
func fetch(t *testing.T, files map[string][]byte, d descriptor, into any) []byte {
	t.Helper()
	b, ok := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	if !ok || len(b) != d.Size || "sha256:"+hex.EncodeToString(sum(b)) != d.Digest {
		t.Fatalf("blob %+v: there %v, %d bytes", d, ok, len(b))
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestImage(t *testing.T) {
	const tag = "ghcr.io/tollwire/tollwire:1.2"
	images := testImages(t, "amd64", "arm64")
	var one, two bytes.Buffer
	if err := errors.Join(write(&one, tag, images), write(&two, tag, images)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same sources gave other bytes")
	}
	files := untar(t, &one)
	var top, index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &top); err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations["io.containerd.image.name"] != tag ||
		top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2" {
		t.Fatalf("%+v", top)
	}
	fetch(t, files, top.Manifests[0], &index)
	if len(index.Manifests) != 2 {
		t.Fatalf("%+v", index)
	}
	for i, d := range index.Manifests {
		if d.Platform == nil || d.Platform.Architecture != images[i].arch {
			t.Errorf("platform %+v", d.Platform)
		}
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		fetch(t, files, d, &manifest)
		var config struct {
			Architecture string
			Config       struct{ Entrypoint, Cmd []string }
			RootFS       struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		fetch(t, files, manifest.Config, &config)
		packed := fetch(t, files, manifest.Layers[0], nil)
		g, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(g)
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != images[i].arch || config.Config.Entrypoint[0] != "tollwire" || config.Config.Cmd[0] != "run" ||
			config.RootFS.DiffIDs[0] != "sha256:"+hex.EncodeToString(sum(plain)) {
			t.Errorf("%+v", config)
		}
		content := untar(t, bytes.NewReader(plain))
		if string(content["usr/bin/tollwire"]) != "program of "+images[i].arch || content["etc/ssl/x"] == nil || content["usr/"] == nil {
			t.Errorf("layer: %v", content)
		}
	}
	if files["manifest.json"] != nil {
		t.Error("docker's manifest.json cannot name two architectures")
	}
}

func TestDockerArchive(t *testing.T) {
	var b bytes.Buffer
	if err := write(&b, "x/y:z", testImages(t, "arm64")); err != nil {
		t.Fatal(err)
	}
	files := untar(t, &b)
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &docker); err != nil {
		t.Fatal(err)
	}
	if docker[0].RepoTags[0] != "x/y:z" || files[docker[0].Config] == nil || files[docker[0].Layers[0]] == nil {
		t.Errorf("%+v", docker)
	}
}
