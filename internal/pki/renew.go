package pki

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync/atomic"
	"time"
)

// Renewed is a certificate that is issued anew before it expires, for as long as Run runs.
type Renewed struct {
	authority *Authority
	leaf      Leaf
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]
}

// Renew issues a certificate that Run will keep fresh.
func (a *Authority) Renew(l Leaf, log *slog.Logger) (*Renewed, error) {
	r := &Renewed{authority: a, leaf: l, log: log}
	if err := r.issue(time.Now()); err != nil {
		return nil, err
	}
	return r, nil
}

// Current is the newest certificate.
func (r *Renewed) Current() *tls.Certificate { return r.current.Load() }

// GetCertificate serves as tls.Config.GetCertificate.
func (r *Renewed) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.current.Load(), nil
}

// GetClientCertificate serves as tls.Config.GetClientCertificate.
func (r *Renewed) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.current.Load(), nil
}

func (r *Renewed) issue(now time.Time) error {
	c, err := r.authority.Issue(r.leaf, now)
	if err != nil {
		return err
	}
	r.current.Store(c)
	return nil
}

// Run issues the certificate anew at two thirds of its life, until ctx ends.
func (r *Renewed) Run(ctx context.Context) error {
	// Timers stand still while a machine sleeps and know nothing of a clock that was set, so the wall clock is looked at once an hour.
	const look, pause = time.Hour, time.Minute
	for {
		leaf := r.Current().Leaf
		due := RenewAt(leaf.NotBefore, leaf.NotAfter)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(max(time.Until(due), pause), look)):
		}
		now := time.Now()
		if now.Before(due) {
			continue
		}
		if err := r.issue(now); err != nil {
			r.log.Error("a certificate could not be renewed; trying again in a minute", "name", r.leaf.CommonName, "err", err)
			continue
		}
		r.log.Info("renewed a certificate", "name", r.leaf.CommonName, "until", r.Current().Leaf.NotAfter)
	}
}

// RenewAt is two thirds into a certificate's life.
func RenewAt(notBefore, notAfter time.Time) time.Time {
	return notBefore.Add(notAfter.Sub(notBefore) * 2 / 3)
}
