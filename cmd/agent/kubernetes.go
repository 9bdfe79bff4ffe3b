package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/attribution/kube"
)

// pods watches the pods of this node, or returns nil where there is no Kubernetes.
// Without the API server the agent goes on, with what cgroups and the runtime's
// own files say.
func (k *KubernetesConfig) pods(ctx context.Context, cfg *attribution.Config, log *slog.Logger) (attribution.Pods, error) {
	if k.Enabled == "no" {
		return nil, nil
	}
	host, _ := os.Hostname()
	w, err := kube.New(kube.Config{
		Kubeconfig: k.Kubeconfig,
		Node:       cmp.Or(k.Node, os.Getenv("NODE_NAME"), host),
		Keep:       cfg.KeepAnnotation,
		Logger:     log,
	})
	switch {
	case errors.Is(err, kube.ErrNotInCluster) && k.Enabled == "auto":
		return nil, nil
	case err != nil && k.Enabled == "auto":
		log.Warn("go on without Kubernetes", "err", err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	go w.Run(ctx)
	return w, nil
}
