package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// image is an image of one architecture: one layer, one program.
type image struct {
	arch       string
	files      []file
	entrypoint []string
	command    []string
}

// file is a file of the layer. Its folders are made for it.
type file struct {
	name string // without a leading slash
	mode int64
	from string // path on this machine
}

// descriptor, and what else is encoded here, is of the OCI image specification
// (https://github.com/opencontainers/image-spec).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// archive is an OCI layout in the making.
type archive struct {
	*tar.Writer
	written map[string]bool
}

func (a *archive) add(name string, mode int64, b []byte) error {
	if a.written[name] {
		return nil
	}
	a.written[name] = true
	if err := a.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(b)), Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	_, err := a.Write(b)
	return err
}

// blob adds b under its digest.
func (a *archive) blob(mediaType string, b []byte) (descriptor, error) {
	sum := hex.EncodeToString(sum(b))
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(b)}, a.add("blobs/sha256/"+sum, 0o644, b)
}

func (a *archive) json(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return a.blob(mediaType, b)
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// write writes the images as one archive: an OCI layout, and beside it what docker
// load wants when there is one architecture.
func write(w io.Writer, tag string, images []image) error {
	a := &archive{tar.NewWriter(w), make(map[string]bool)}
	if err := a.add("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	var manifests []descriptor
	for _, m := range images {
		d, docker, err := a.image(m, tag)
		if err != nil {
			return fmt.Errorf("%s: %w", m.arch, err)
		}
		d.Platform = &platform{m.arch, "linux"}
		manifests = append(manifests, d)
		if len(images) == 1 {
			if err := a.add("manifest.json", 0o644, docker); err != nil {
				return err
			}
		}
	}
	top := manifests[0]
	if len(images) > 1 {
		var err error
		top, err = a.json(indexType, map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": manifests})
		if err != nil {
			return err
		}
	}
	_, version, _ := strings.Cut(tag[strings.LastIndexByte(tag, '/')+1:], ":")
	top.Annotations = map[string]string{
		"io.containerd.image.name":          tag,
		"org.opencontainers.image.ref.name": version,
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{top}})
	if err != nil {
		return err
	}
	if err := a.add("index.json", 0o644, index); err != nil {
		return err
	}
	return a.Close()
}

// image adds one image's layer, configuration and manifest, and returns the
// manifest's descriptor and docker's manifest.json.
func (a *archive) image(m image, tag string) (descriptor, []byte, error) {
	plain, packed, err := layer(m.files)
	if err != nil {
		return descriptor{}, nil, err
	}
	l, err := a.blob(layerType, packed)
	if err != nil {
		return descriptor{}, nil, err
	}
	config, err := a.json(configType, map[string]any{
		"architecture": m.arch,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": m.entrypoint,
			"Cmd":        m.command,
			"Env":        []string{"PATH=/usr/bin"},
			"WorkingDir": "/",
			"Labels": map[string]string{
				"org.opencontainers.image.source":   "https://github.com/tollwire/tollwire",
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(plain)}},
		"history": []map[string]string{{"created_by": "go run ./deploy/image"}},
	})
	if err != nil {
		return descriptor{}, nil, err
	}
	docker, err := json.Marshal([]map[string]any{{
		"Config":   "blobs/" + strings.Replace(config.Digest, ":", "/", 1),
		"RepoTags": []string{tag},
		"Layers":   []string{"blobs/" + strings.Replace(l.Digest, ":", "/", 1)},
	}})
	if err != nil {
		return descriptor{}, nil, err
	}
	d, err := a.json(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []descriptor{l},
	})
	return d, docker, err
}

// layer packs the files, owned by root and without times, and returns the digest
// of the tar and the tar compressed.
func layer(files []file) (plain, packed []byte, err error) {
	var raw bytes.Buffer
	t := tar.NewWriter(&raw)
	made := make(map[string]bool)
	for _, f := range slices.SortedFunc(slices.Values(files), func(x, y file) int { return strings.Compare(x.name, y.name) }) {
		var folders []string
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			folders = append(folders, dir)
		}
		slices.Reverse(folders)
		for _, dir := range folders {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
				return nil, nil, err
			}
		}
		b, err := os.ReadFile(f.from)
		if err != nil {
			return nil, nil, err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(b)), Format: tar.FormatUSTAR}); err != nil {
			return nil, nil, err
		}
		if _, err := t.Write(b); err != nil {
			return nil, nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, nil, err
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	if _, err := g.Write(raw.Bytes()); err != nil {
		return nil, nil, err
	}
	if err := g.Close(); err != nil {
		return nil, nil, err
	}
	return sum(raw.Bytes()), z.Bytes(), nil
}
