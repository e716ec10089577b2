"""The REST API for partners: chambers and help desks whose own systems ask for what their people see in the portal.

A partner is a machine that shows a certificate of the partners' own CA, which is in the registry (`partners`). It has a
role of the portal and therefore its rights, and a scope of customers. Every path names the customer whose data it is
about; for who does not look after that one it does not exist. How versions end is in `versions`.
"""
