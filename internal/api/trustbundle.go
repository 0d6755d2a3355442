package api

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type trustBundle = certificatesv1.ClusterTrustBundle

// maxTrustBundle is how many bytes of certificates one bundle may have.
const maxTrustBundle = 1 << 20

var trustBundleRow = Resource{
	Group: "certificates.k8s.io", Version: "v1", Kind: "ClusterTrustBundle", Plural: "clustertrustbundles", Key: "clustertrustbundles", Cold: true, ValidateName: anyName,
	Fields:   func(o Object) fields.Set { return fields.Set{"spec.signerName": o.(*trustBundle).Spec.SignerName} },
	Validate: func(o Object) field.ErrorList { return validateTrustBundle(o.(*trustBundle), nil) },
	ValidateUpdate: func(o, old Object) field.ErrorList {
		return validateTrustBundle(o.(*trustBundle), old.(*trustBundle))
	},
	Columns: []Column{nameColumn, text("SignerName", func(b *trustBundle) string { return orNone(b.Spec.SignerName) })},
}

// validateTrustBundle: the name says the signer, and certificates that were good once are not looked at again.
func validateTrustBundle(b, was *trustBundle) (errs field.ErrorList) {
	errs = each(field.NewPath("metadata", "name"), b.Name, trustBundleName(b.Spec.SignerName, b.Name))
	p := field.NewPath("spec")
	if b.Spec.SignerName != "" {
		errs = append(errs, validateSignerName(b.Spec.SignerName, p.Child("signerName"))...)
	}
	if was != nil {
		errs = append(errs, immutable(b.Spec.SignerName, was.Spec.SignerName, p.Child("signerName"))...)
		if b.Spec.TrustBundle == was.Spec.TrustBundle {
			return errs
		}
	}
	return append(errs, trustAnchors(b.Spec.TrustBundle, p.Child("trustBundle"))...)
}

func trustBundleName(signer, name string) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{"ClusterTrustBundle without signer name must not have \":\" in its name"}
		}
		return apivalidation.NameIsDNSSubdomain(name, false)
	}
	prefix := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, found := strings.CutPrefix(name, prefix)
	if !found {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, prefix)}
	}
	return apivalidation.NameIsDNSSubdomain(rest, false)
}

// trustAnchors: PEM blocks of certificates of authorities, each once.
func trustAnchors(bundle string, p *field.Path) (errs field.ErrorList) {
	if len(bundle) > maxTrustBundle {
		return field.ErrorList{field.TooLong(p, "<value omitted>", maxTrustBundle)}
	}
	bad := func(format string, args ...any) {
		errs = append(errs, field.Invalid(p, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	first := map[[sha256.Size]byte]int{}
	rest, n := []byte(bundle), 0
	for ; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if len(block.Headers) != 0 {
			bad("PEM block %d has headers: %v", n, block.Headers)
		}
		if block.Type != "CERTIFICATE" {
			bad("entry %d has bad block type: %v", n, block.Type)
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			bad("entry %d does not parse as X.509: %v", n, err)
			continue
		}
		if !c.IsCA {
			bad("entry %d does not have the CA bit set", n)
		}
		sum := sha256.Sum256(block.Bytes)
		if other, twice := first[sum]; twice {
			bad("duplicate trust anchor (indices %v)", []int{other, n})
		} else {
			first[sum] = n
		}
	}
	if n == 0 {
		bad("at least one trust anchor must be provided")
	}
	return errs
}
