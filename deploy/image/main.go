// Command image makes the agent's container image without a Docker engine, for one
// or more architectures, as a tar that containerd, podman, skopeo and docker take:
//
//	go run ./deploy/image -tag ghcr.io/tollwire/tollwire:0.1.0 -arch amd64,arm64 -o tollwire.tar
//	ctr -n k8s.io images import tollwire.tar
//	skopeo copy oci-archive:tollwire.tar docker://ghcr.io/tollwire/tollwire:0.1.0 --all
//
// The same sources give the same bytes. It holds what deploy/Dockerfile puts into it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	var (
		tag     = flag.String("tag", "ghcr.io/tollwire/tollwire:dev", "name of the image")
		arches  = flag.String("arch", "amd64,arm64", "architectures, comma-separated")
		out     = flag.String("o", "tollwire.tar", "file to write")
		version = flag.String("version", "", "version that the agent states; empty: the tag's")
		pkg     = flag.String("package", "./cmd/agent", "Go package of the binary")
		name    = flag.String("name", "tollwire", "name of the binary")
		binary  = flag.String("binary", "", "take this binary, do not build; one architecture only")
		certs   = flag.String("certs", "/etc/ssl/certs/ca-certificates.crt", "certificate bundle to put in; empty: none")
	)
	flag.Parse()
	if err := run(*tag, strings.Split(*arches, ","), *out, *version, *pkg, *name, *binary, *certs); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(tag string, arches []string, out, version, pkg, name, binary, certs string) error {
	if binary != "" && len(arches) != 1 {
		return errors.New("-binary is of one architecture: want one in -arch")
	}
	if _, after, ok := strings.Cut(tag[strings.LastIndexByte(tag, '/')+1:], ":"); version == "" && ok {
		version = after
	}
	dir, err := os.MkdirTemp("", "tollwire-image-")
	if err != nil {
		return fmt.Errorf("make a folder for the build: %w", err)
	}
	defer os.RemoveAll(dir)

	var images []image
	for _, arch := range arches {
		path := binary
		if path == "" {
			path = filepath.Join(dir, arch)
			if err := build(path, pkg, arch, version); err != nil {
				return err
			}
		}
		files := []file{{name: "usr/bin/" + name, mode: 0o755, from: path}}
		if certs != "" {
			files = append(files, file{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, from: certs})
		}
		images = append(images, image{
			arch:       arch,
			files:      files,
			entrypoint: []string{name},
			command:    []string{"run"},
		})
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	err = errors.Join(write(f, tag, images), f.Close())
	if err != nil {
		os.Remove(out)
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

func build(path, pkg, arch, version string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s for %s: %w", pkg, arch, err)
	}
	return nil
}
