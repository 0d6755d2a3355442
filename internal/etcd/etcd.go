// Package etcd owns the life of the cluster's etcd: the embedded member with an in-process client, or a client of external endpoints.
//
// The embedded member listens on no TCP port: its peer address is a unix socket below Dir (a single member has no peers), and its only
// client is handed out by Client without gRPC. Everything it keeps is below Dir. Only package store talks to the client; package host runs
// the member.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
)

// Config of a member or of external endpoints.
type Config struct {
	Dir       string
	Name      string
	Endpoints []string // external etcd instead of the embedded member

	CAFile, CertFile, KeyFile string // for the external endpoints

	Log *slog.Logger
}

const (
	quotaBytes = 8 << 30
	// requestBytes is upstream's limit on an object with room for its envelope.
	requestBytes = 3 << 20
	history      = "5m"
	// A single member elects itself; short ticks only shorten its wait for that at the start.
	tickMs, electionMs = 10, 100
	startPatience      = 30 * time.Second
)

// Member is the embedded member, or the connection to an external etcd.
type Member struct {
	cfg    Config
	ready  chan struct{}
	client *Client
	room   atomic.Pointer[room]
}

// New checks the configuration; nothing is started yet.
func New(cfg Config) (*Member, error) {
	for _, e := range cfg.Endpoints {
		if u, err := url.Parse(e); err != nil || !slices.Contains([]string{"http", "https", "unix", "unixs"}, u.Scheme) || u.Host == "" && u.Path == "" {
			return nil, fmt.Errorf("etcd-endpoints: %q is no address such as https://10.0.0.1:2379", e)
		}
	}
	return &Member{cfg: cfg, ready: make(chan struct{})}, nil
}

// Ready is closed once the client answers.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Client speaks to the member without gRPC, or to the external endpoints. Valid after Ready.
func (m *Member) Client() *Client { return m.client }

// Client is etcd's own with another way to commit transactions.
type Client struct {
	*clientv3.Client
	// Transact commits a transaction. What the client's Txn would copy several times over is sent as it is, so nobody may change it any more.
	Transact func(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error)
}

// Embedded says that this process holds the only member, so nobody else can write.
func (m *Member) Embedded() bool { return len(m.cfg.Endpoints) == 0 }

// Run keeps etcd until ctx ends.
func (m *Member) Run(ctx context.Context) error {
	if m.Embedded() {
		return m.runEmbedded(ctx)
	}
	return m.runExternal(ctx)
}

func (m *Member) runEmbedded(ctx context.Context) error {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create etcd's folder: %w", err)
	}
	e, err := embed.StartEtcd(m.embedConfig())
	if err != nil {
		return fmt.Errorf("start etcd on %s: %w", m.cfg.Dir, err)
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return fmt.Errorf("etcd on %s: %w", m.cfg.Dir, err)
	case <-ctx.Done():
		return nil
	case <-time.After(startPatience):
		return fmt.Errorf("etcd on %s was not ready after %s; is the disk very slow?", m.cfg.Dir, startPatience)
	}
	calm(e.Server)
	m.client = &Client{v3client.New(e.Server), m.whileThereIsRoom(v3rpc.NewQuotaKVServer(e.Server))}
	defer m.client.Close()
	close(m.ready)
	watched := make(chan struct{})
	go func() { defer close(watched); m.watchSpace(ctx) }()
	defer func() { <-watched }()
	select {
	case err := <-e.Err():
		return fmt.Errorf("etcd on %s: %w", m.cfg.Dir, err)
	case <-e.Server.StopNotify():
		return errors.New("etcd stopped by itself; its log says why")
	case <-ctx.Done():
		return nil
	}
}

func (m *Member) embedConfig() *embed.Config {
	c := embed.NewConfig()
	c.Name = m.cfg.Name
	c.Dir = m.cfg.Dir
	// The address is the same wherever the process runs, for it is part of the member's identity on disk. It is relative to nothing and names a socket that
	// is never dialled.
	peer := url.URL{Scheme: "unix", Host: filepath.Base(m.cfg.Dir) + "-peer:0"}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = nil, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.QuotaBackendBytes = quotaBytes
	c.MaxRequestBytes = requestBytes
	c.MaxTxnOps = 1024
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, history
	c.SnapshotCount = 10000
	c.SnapshotCatchUpEntries = 1000
	c.Metrics = "basic"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{m.cfg.Log}))
	return c
}
