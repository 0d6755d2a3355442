// Package scheduler chooses a node for every pod that has none.
// SKELETON: signatures agreed with host.
package scheduler

import (
	"context"
	"log/slog"

	"skiff.dev/skiff/internal/client"
)

type Config struct {
	Name   string // "default-scheduler"
	Client client.Client
	Log    *slog.Logger
}

type Scheduler struct{}

func New(cfg Config) *Scheduler                    { panic("skeleton") }
func (s *Scheduler) Run(ctx context.Context) error { panic("skeleton") }
func (s *Scheduler) Ready() <-chan struct{}        { panic("skeleton") }
