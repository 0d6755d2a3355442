package dra

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"

	"skiff.dev/skiff/internal/kubelet/plugin"
)

const callTime = 45 * time.Second

// driver is one that is registered. Both versions of its service have the same messages.
type driver struct {
	name, endpoint string
	service        string
	health         string // of its health service, empty if it has none
	conn           *grpc.ClientConn
	cancel         context.CancelFunc
	connected      bool // under the Node's lock
}

func dial(name, endpoint, service, health string) (*driver, error) {
	conn, err := plugin.Dial(endpoint)
	if err != nil {
		return nil, err
	}
	return &driver{name: name, endpoint: endpoint, service: service, health: health, conn: conn}, nil
}

func (d *driver) begin(ctx context.Context) context.Context {
	ctx, d.cancel = context.WithCancel(ctx)
	return ctx
}

func (d *driver) close() {
	if d.cancel != nil {
		d.cancel()
	}
	d.conn.Close()
}

func (d *driver) prepare(ctx context.Context, claims []*draapi.Claim) (*draapi.NodePrepareResourcesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out := &draapi.NodePrepareResourcesResponse{}
	return out, d.conn.Invoke(ctx, "/"+d.service+"/NodePrepareResources", &draapi.NodePrepareResourcesRequest{Claims: claims}, out)
}

func (d *driver) unprepare(ctx context.Context, claims []*draapi.Claim) (*draapi.NodeUnprepareResourcesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out := &draapi.NodeUnprepareResourcesResponse{}
	return out, d.conn.Invoke(ctx, "/"+d.service+"/NodeUnprepareResources", &draapi.NodeUnprepareResourcesRequest{Claims: claims}, out)
}

// follow keeps a connection to the driver: one that dies leaves its sockets, and only the connection tells.
func (n *Node) follow(ctx context.Context, d *driver) {
	for state := d.conn.GetState(); ; state = d.conn.GetState() {
		switch state {
		case connectivity.Idle:
			d.conn.Connect()
		case connectivity.Ready, connectivity.TransientFailure:
			n.mu.Lock()
			if connected := state == connectivity.Ready; connected != d.connected {
				d.connected = connected
				n.available(d.name)
			}
			n.mu.Unlock()
		case connectivity.Shutdown:
			return
		}
		if !d.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}
