package etcd

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	// answerPatience bounds the wait for the first answer, after which a start has failed.
	answerPatience = 10 * time.Second
	// callPatience bounds every later call. The client would try again for as long as anybody waits, and behind every one of them waits a request.
	callPatience = 5 * time.Second
)

func (m *Member) runExternal(ctx context.Context) error {
	client, err := m.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	first, cancel := context.WithTimeout(ctx, answerPatience)
	_, err = client.Get(first, "health")
	cancel()
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("etcd-endpoints: none of %v answers within %s: %w; start it, or give others", m.cfg.Endpoints, answerPatience, err)
	}
	client.KV = impatient{client.KV}
	m.client = &Client{client, impatiently(clientv3.RetryKVClient(client))}
	close(m.ready)
	<-ctx.Done()
	return nil
}

func (m *Member) dial() (*clientv3.Client, error) {
	// An etcd that comes back is found within two seconds, however long it was away.
	reconnect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
	cfg := clientv3.Config{
		Endpoints:            m.cfg.Endpoints,
		DialTimeout:          answerPatience,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   requestBytes,
		MaxCallRecvMsgSize:   1 << 30,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(reconnect)},
		Logger:               zap.New(slogCore{m.cfg.Log}),
	}
	var err error
	if cfg.TLS, err = m.tls(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd-endpoints: %w", err)
	}
	return client, nil
}

// tls is how external endpoints are reached; nil for what the host trusts.
func (m *Member) tls() (*tls.Config, error) {
	if m.cfg.CAFile == "" && m.cfg.CertFile == "" {
		return nil, nil
	}
	info := transport.TLSInfo{TrustedCAFile: m.cfg.CAFile, CertFile: m.cfg.CertFile, KeyFile: m.cfg.KeyFile}
	out, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("etcd-cafile, etcd-certfile, etcd-keyfile: %w", err)
	}
	if out.GetClientCertificate != nil {
		out.GetClientCertificate = (&lastGood{file: m.cfg.CertFile, read: out.GetClientCertificate, log: m.cfg.Log}).get
	}
	return out, nil
}

// lastGood is a client certificate that is read from its files for every connection. While they cannot be used, as when only one of them has been
// replaced, it is what they held before.
type lastGood struct {
	file string
	read func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	log  *slog.Logger

	mu   sync.Mutex
	last *tls.Certificate
	told string // the last complaint, which is made once
}

func (c *lastGood) get(about *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	now, err := c.read(about)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.last, c.told = now, ""
	case c.last == nil:
		return nil, err
	case c.told != err.Error():
		c.told = err.Error()
		c.log.Error("the client certificate for etcd cannot be read again; the one that was read before is used", "setting", "etcd-certfile", "file", c.file, "err", err)
	}
	return c.last, nil
}

// impatient gives up on reads that are not answered.
type impatient struct{ clientv3.KV }

func (i impatient) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	return i.KV.Get(ctx, key, opts...)
}

// impatiently gives up on transactions that are not answered.
func impatiently(kv etcdserverpb.KVClient) func(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return func(ctx context.Context, r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, callPatience)
		defer cancel()
		resp, err := kv.Txn(ctx, r)
		return resp, clientv3.ContextError(ctx, err)
	}
}
