package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/attribution/cri"
	"github.com/tollwire/tollwire/attribution/kube"
)

// podSources is who names the pods of this node.
type podSources struct {
	api     *kube.Watcher // nil: no Kubernetes
	runtime *cri.Lister   // nil: no container runtime's socket
}

// follow begins to follow the pods of this node, and gives cfg what names them: the
// API server where there is one, and the container runtime where that one has not
// answered. Without either the agent goes on, with what cgroups and the runtime's
// own files say.
func (k *KubernetesConfig) follow(ctx context.Context, cfg *attribution.Config, log *slog.Logger) (podSources, error) {
	var s podSources
	if k.Enabled == "no" {
		return s, nil
	}
	host, _ := os.Hostname()
	cfg.NodeName = cmp.Or(k.Node, os.Getenv("NODE_NAME"), host)
	api, err := kube.New(kube.Config{Kubeconfig: k.Kubeconfig, Node: cfg.NodeName, Keep: cfg.KeepAnnotation, Logger: log})
	switch {
	case err == nil:
		s.api, cfg.Pods = api, api
	case k.Enabled != "auto":
		return s, fmt.Errorf("watch pods: %w", err)
	case !errors.Is(err, kube.ErrNotInCluster):
		log.Warn("go on without Kubernetes", "err", err)
	}
	root := cmp.Or(cfg.HostRoot, attribution.HostRoot(cfg.Proc))
	list, err := cri.New(cri.Config{HostRoot: root, Keep: cfg.KeepAnnotation, Logger: log})
	switch {
	case err == nil:
		s.runtime, cfg.Fallback = list, list
	case !errors.Is(err, cri.ErrNoSocket):
		log.Warn("go on without the container runtime", "err", err)
	}
	if s.api != nil {
		go s.api.Run(ctx)
	}
	if s.runtime != nil {
		go s.runtime.Run(ctx)
	}
	return s, nil
}
