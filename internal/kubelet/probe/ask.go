package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const maxBody = 10 << 10

// Ask makes one attempt; an error says why it failed, a warning what is odd about a success.
func Ask(ctx context.Context, h *corev1.ProbeHandler, t Target) (warning string, err error) {
	switch {
	case h.Exec != nil:
		return "", ask(ctx, h.Exec.Command, t)
	case h.HTTPGet != nil:
		return Call(ctx, h.HTTPGet, t.Container, t.Address)
	case h.TCPSocket != nil:
		return "", dial(ctx, h.TCPSocket, t)
	case h.GRPC != nil:
		return "", check(ctx, h.GRPC, t)
	}
	return "", errors.New("the probe has no handler")
}

func ask(ctx context.Context, command []string, t Target) error {
	deadline, _ := ctx.Deadline()
	resp, err := t.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: t.ID, Cmd: command, Timeout: seconds(ctx)})
	switch {
	case status.Code(err) == codes.DeadlineExceeded, ctx.Err() != nil && !deadline.IsZero():
		return fmt.Errorf("command timed out: %q", strings.Join(command, " "))
	case err != nil:
		return err
	case resp.ExitCode != 0:
		out := append(resp.Stdout, resp.Stderr...)
		return errors.New(string(out[:min(len(out), maxBody)]))
	}
	return nil
}

func seconds(ctx context.Context) int64 {
	if d, ok := ctx.Deadline(); ok {
		return max(int64(time.Until(d).Seconds()+0.999), 1)
	}
	return 0
}

// Call makes one HTTP request; anything from 200 to 399 is well. A redirect to another host is not followed, and warned of.
func Call(ctx context.Context, h *corev1.HTTPGetAction, c *corev1.Container, address string) (warning string, err error) {
	port, err := portNumber(h.Port, c)
	if err != nil {
		return "", err
	}
	if h.Host != "" {
		address = h.Host
	}
	scheme := strings.ToLower(string(h.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u := &url.URL{Scheme: scheme, Host: net.JoinHostPort(address, strconv.Itoa(port))}
	if ref, err := url.Parse(h.Path); err == nil {
		u.Path, u.RawQuery = ref.Path, ref.RawQuery
	} else {
		u.Path = h.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "kube-probe/1.37")
	req.Header.Set("Accept", "*/*")
	for _, one := range h.HTTPHeaders {
		if strings.EqualFold(one.Name, "Host") {
			req.Host = one.Value
		} else {
			req.Header.Add(one.Name, one.Value)
		}
	}
	resp, err := client(u.Hostname()).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode < 200 || resp.StatusCode >= 400:
		return "", fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	case resp.StatusCode >= 300 && resp.Header.Get("Location") != "":
		return fmt.Sprintf("Probe terminated redirects, Response body: %s", body), nil
	}
	return "", nil
}

// client for one request: a kept connection would hide that nobody listens any more.
func client(host string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // probes don't verify: documented
			DisableKeepAlives:  true,
			DisableCompression: true,
			Proxy:              nil,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != host {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

func dial(ctx context.Context, h *corev1.TCPSocketAction, t Target) error {
	port, err := portNumber(h.Port, t.Container)
	if err != nil {
		return err
	}
	host := t.Address
	if h.Host != "" {
		host = h.Host
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

func check(ctx context.Context, h *corev1.GRPCAction, t Target) error {
	target := "passthrough:///" + net.JoinHostPort(t.Address, strconv.Itoa(int(h.Port)))
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.37"))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := ""
	if h.Service != nil {
		service = *h.Service
	}
	resp, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: service})
	if err != nil {
		switch status.Code(err) {
		case codes.Unimplemented:
			return fmt.Errorf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())
		case codes.DeadlineExceeded:
			return fmt.Errorf("timeout: health rpc did not complete within %ds", seconds(ctx))
		}
		return fmt.Errorf("error: health rpc probe failed: %w", err)
	}
	if resp.Status != health.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", resp.Status)
	}
	return nil
}

// portNumber resolves a named port among the container's.
func portNumber(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, one := range c.Ports {
		if one.Name == p.StrVal {
			return int(one.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("couldn't find port: %s", p.StrVal)
}
