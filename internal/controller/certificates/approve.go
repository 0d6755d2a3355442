package certificates

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// NewApprover returns the controller that approves nodes' own certificates. Beyond upstream's, it approves serving certificates for the addresses
// that the node's object has, and denies a machine that joins under a name which is taken.
func NewApprover(c client.Client) harness.Controller {
	a := &approver{client: c}
	a.allowed = a.review
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.Self(&csr{}), harness.On(&corev1.Node{}, a.nodeChanged)},
		Reconcile: a.reconcile,
	}
}

type approver struct {
	client  client.Client
	granted claims
	allowed func(ctx context.Context, r *csr, subresource string) (bool, error)
}

// nodeChanged: a serving certificate waits for its node's addresses, and a name needs no claim once its node is there.
func (a *approver) nodeChanged(old, current *corev1.Node) (keys []harness.Key) {
	if current != nil {
		a.granted.drop(current.Name)
	}
	if current == nil || old != nil && slices.Equal(old.Status.Addresses, current.Status.Addresses) {
		return nil
	}
	var list certificatesv1.CertificateSigningRequestList
	if err := a.client.List(context.Background(), &list, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	for i := range list.Items {
		if r := &list.Items[i]; r.Spec.Username == nodePrefix+current.Name && len(r.Status.Conditions) == 0 {
			keys = append(keys, crclient.ObjectKeyFromObject(r))
		}
	}
	return keys
}

func (a *approver) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var found csr
	if err := a.client.Get(ctx, key, &found); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	p, ours := purposes[found.Spec.SignerName]
	if !ours || !p.node || len(found.Status.Certificate) > 0 || has(&found, certificatesv1.CertificateApproved) || has(&found, certificatesv1.CertificateDenied) {
		return 0, nil
	}
	req, err := api.CertificateRequest(found.Spec.Request)
	if err != nil || p.check(req, found.Spec.Usages) != nil {
		return 0, nil // not a node's; somebody else may decide
	}
	var node corev1.Node
	name := strings.TrimPrefix(req.Subject.CommonName, nodePrefix)
	err = a.client.Live().Get(ctx, crclient.ObjectKey{Name: name}, &node)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	exists := err == nil
	var others []string
	if p.serving {
		if others, err = a.others(ctx, name); err != nil {
			return 0, err
		}
	}
	v := judge(p, &found, req, &node, exists, others)
	if v.needs != "" {
		ok, err := a.allowed(ctx, &found, v.needs)
		if err != nil || !ok {
			return 0, err
		}
	}
	if v.kind == "" {
		return 0, nil
	}
	if v.joins && !a.granted.take(name, req.RawSubjectPublicKeyInfo, time.Now()) {
		v = taken("another host is joining as node %q just now; give this host another --node-name", name)
	}
	next := found.DeepCopy()
	conclude(next, v.kind, v.reason, v.message)
	if err := a.client.SubResource("approval").Update(ctx, next); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("decide about the certificate %s: %w", key.Name, err)
	}
	return 0, nil
}

// verdict about a request; without a kind there is none yet.
type verdict struct {
	needs           string // the subresource of certificatesigningrequests that who asks must be allowed to create
	joins           bool   // it would make a new node of a host
	kind            certificatesv1.RequestConditionType
	reason, message string
}

// judge decides about a request that its signer would sign for a node. others are addresses that a node may claim but does not have.
func judge(p purpose, r *csr, req *x509.CertificateRequest, node *corev1.Node, exists bool, others []string) verdict {
	self := r.Spec.Username == req.Subject.CommonName
	name := strings.TrimPrefix(req.Subject.CommonName, nodePrefix)
	switch {
	case p.serving:
		if !self || !slices.Contains(r.Spec.Groups, nodesGroup) || !exists || !covers(node, req, others) {
			return verdict{}
		}
		return verdict{kind: certificatesv1.CertificateApproved, reason: "AutoApproved",
			message: "Auto approving kubelet serving certificate: all names and addresses are the node's own."}
	case self:
		return verdict{needs: "selfnodeclient", kind: certificatesv1.CertificateApproved, reason: "AutoApproved",
			message: "Auto approving self kubelet client certificate after SubjectAccessReview."}
	case exists:
		return taken("the cluster has a node %q already; give this host another --node-name, or run 'kubectl delete node %[1]s' first if it takes that node's place", name)
	}
	return verdict{needs: "nodeclient", joins: true, kind: certificatesv1.CertificateApproved, reason: "AutoApproved",
		message: "Auto approving kubelet client certificate after SubjectAccessReview."}
}

func taken(why, name string) verdict {
	return verdict{needs: "nodeclient", kind: certificatesv1.CertificateDenied, reason: "NodeNameTaken", message: fmt.Sprintf(why, name)}
}

// claims are the names under which hosts join just now. Between the certificate and the Node object that it lets a host make, a second host
// would find the name free.
type claims struct {
	mu sync.Mutex
	by map[string]claim
}

type claim struct {
	key   []byte // the host's public key
	until time.Time
}

// claimLife is ample for a host to register after its certificate was granted, and short for one whose first attempt failed with another key.
const claimLife = time.Minute

// take gives a name to a key, unless another key has it.
func (c *claims) take(name string, key []byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.by, func(_ string, held claim) bool { return now.After(held.until) })
	if held, ok := c.by[name]; ok {
		return bytes.Equal(held.key, key)
	}
	if c.by == nil {
		c.by = map[string]claim{}
	}
	c.by[name] = claim{key: key, until: now.Add(claimLife)}
	return true
}

func (c *claims) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.by, name)
}

// covers says whether all names and addresses of a serving certificate are the node's own. A node writes its addresses itself, and the API
// server's certificate is from the same authority, so what is anybody else's does not count.
func covers(node *corev1.Node, req *x509.CertificateRequest, others []string) bool {
	for _, n := range req.DNSNames {
		if n != node.Name || n == "localhost" || n == "kubernetes" || strings.HasPrefix(n, "kubernetes.default") {
			return false
		}
	}
	for _, ip := range req.IPAddresses {
		text := ip.String()
		mine := slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == text })
		if !mine || ip.IsLoopback() || slices.Contains(others, text) {
			return false
		}
	}
	return true
}

// others are the addresses of the API servers and of all nodes but one.
func (a *approver) others(ctx context.Context, self string) (out []string, err error) {
	var nodes corev1.NodeList
	if err := a.client.List(ctx, &nodes, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for i := range nodes.Items {
		if nodes.Items[i].Name == self {
			continue
		}
		for _, at := range nodes.Items[i].Status.Addresses {
			out = append(out, at.Address)
		}
	}
	var slicesOf discoveryv1.EndpointSliceList
	if err := a.client.List(ctx, &slicesOf, crclient.MatchingFields{"service": "default/kubernetes"}, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the API servers: %w", err)
	}
	for _, s := range slicesOf.Items {
		for _, e := range s.Endpoints {
			out = append(out, e.Addresses...)
		}
	}
	var service corev1.Service
	if err := a.client.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "kubernetes"}, &service); crclient.IgnoreNotFound(err) != nil {
		return nil, err
	}
	return append(out, service.Spec.ClusterIPs...), nil
}

// review asks the API whether who made a request may have it approved by itself.
func (a *approver) review(ctx context.Context, r *csr, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range r.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: certificatesv1.GroupName, Resource: "certificatesigningrequests", Verb: "create", Subresource: subresource, Version: "*",
		},
	}}
	if err := a.client.Create(ctx, review); err != nil {
		return false, fmt.Errorf("ask whether %s may have a certificate: %w", r.Spec.Username, err)
	}
	return review.Status.Allowed, nil
}
