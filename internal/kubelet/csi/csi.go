// Package csi talks to the node's CSI drivers: it registers them in the CSINode and has them stage, publish and take back volumes.
//
// On disk, below the kubelet's root, upstream's layout: a pod's volume is pods/<uid>/volumes/kubernetes.io~csi/<name>/mount with vol_data.json beside
// it, and a staged volume plugins/kubernetes.io/csi/<driver>/<hash>/globalmount. Whatever is to be taken back later is written down before the
// driver is asked, so that the kubelet may die at any moment; the calls are idempotent by CSI's own rules.
package csi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/kubelet/plugin"
)

const callTime = 2 * time.Minute

// Node is this node's side of CSI.
type Node struct {
	root   string
	name   string
	client client.Client
	token  Token
	log    *slog.Logger

	mu      sync.Mutex
	drivers map[string]*driver
	stage   map[string]*sync.Mutex // one call at a time for a volume
	volumes map[string]*data       // of all pods, by directory; nil until it is first asked for
}

// Token asks for a service account token bound to a pod.
type Token func(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error)

// New returns the node's side, below the kubelet's root.
func New(root, node string, c client.Client, token Token, log *slog.Logger) *Node {
	return &Node{root: root, name: node, client: c, token: token, log: log, drivers: map[string]*driver{}, stage: map[string]*sync.Mutex{}}
}

// driver is one that is registered.
type driver struct {
	name     string
	endpoint string
	conn     *grpc.ClientConn
	node     csi.NodeClient
	can      map[csi.NodeServiceCapability_RPC_Type]bool
}

// Register takes a driver in: what it says of itself goes into the CSINode.
func (n *Node) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return len(v) > 1 && (v[0] == '1' || v[0] == 'v' && v[1] == '1') }) {
		return fmt.Errorf("none of its CSI versions %v is supported: 1.x is", versions)
	}
	conn, err := plugin.Dial(endpoint)
	if err != nil {
		return err
	}
	d := &driver{name: name, endpoint: endpoint, conn: conn, node: csi.NewNodeClient(conn), can: map[csi.NodeServiceCapability_RPC_Type]bool{}}
	if err := n.introduce(ctx, d); err != nil {
		conn.Close()
		return err
	}
	n.mu.Lock()
	old := n.drivers[name]
	n.drivers[name] = d
	n.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	return nil
}

func (n *Node) introduce(ctx context.Context, d *driver) error {
	info, err := d.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return fmt.Errorf("NodeGetInfo: %w", err)
	}
	can, err := d.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("NodeGetCapabilities: %w", err)
	}
	for _, c := range can.Capabilities {
		d.can[c.GetRpc().GetType()] = true
	}
	return n.enlist(ctx, d.name, info)
}

// Deregister forgets a driver, unless it has come back at another endpoint.
func (n *Node) Deregister(ctx context.Context, name, endpoint string) {
	n.mu.Lock()
	d := n.drivers[name]
	if d == nil || d.endpoint != endpoint {
		n.mu.Unlock()
		return
	}
	delete(n.drivers, name)
	n.mu.Unlock()
	d.conn.Close()
	if err := n.strike(ctx, name); err != nil && ctx.Err() == nil {
		n.log.Warn("take a driver out of the CSINode", "driver", name, "err", err)
	}
}

func (n *Node) driver(name string) (*driver, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// alone lets one call at a time be made for a volume, among pods that share it.
func (n *Node) alone(key string) (unlock func()) {
	n.mu.Lock()
	m := n.stage[key]
	if m == nil {
		m = &sync.Mutex{}
		n.stage[key] = m
	}
	n.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// AttachmentName is the VolumeAttachment of a volume on a node, by the rule that drivers' attachers know.
func AttachmentName(handle, driver, node string) string { return "csi-" + hash(handle, driver, node) }

// staging is where a volume is staged.
func (n *Node) staging(driver, handle string) string {
	return filepath.Join(n.root, "plugins", "kubernetes.io", "csi", driver, hash(handle), "globalmount")
}
