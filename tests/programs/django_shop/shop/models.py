"""Orders."""

from django.db import models


class Order(models.Model):
    """An order, of which only the customer is kept."""

    customer = models.CharField(max_length=40)
